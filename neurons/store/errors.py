"""Why an artifact can't be had, as exceptions that map one to one to the reasons in a pod report.

    StoreError
    ├── ArtifactNotFound   nothing at the URI, or the URI itself is none        retryable: it may be pushed yet
    │   └── FolderNotFound the URI is sound, and nobody has put anything there
    ├── StoreUnreachable   no answer in time, connection refused, name unknown  retryable
    ├── AccessDenied       credentials missing, wrong or not allowed            retryable: rights are granted outside
    ├── DigestMismatch     the bytes are not those the digest names             not retryable: it takes a new spec
    ├── ManifestInvalid    manifest.json missing beside files, or not readable  not retryable: it takes a new push
    │                    (but a missing one is: the push may not have finished)
    ├── AdapterInvalid     no adapter, or none that the engine serves as meant  not retryable: it takes another adapter
    ├── WeightsNotFinite   a NaN, an infinity or an absurd number among weights not retryable: it takes another adapter
    └── NoSpace            the disk to write to is full                         retryable: space may be freed

Every message is a sentence that says what is wrong and what to do; none holds a credential.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from bettertherapy_api.report import FailureReason


class StoreError(Exception):
    """An artifact can't be read, written or trusted; `reason` and `retryable` go into the pod report as they are."""

    reason: ClassVar[FailureReason]
    retryable: bool

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class ArtifactNotFound(StoreError):  # noqa: N818 - named like its reason
    """There is nothing at the URI."""

    reason = FailureReason.ARTIFACT_NOT_FOUND
    retryable = True


class FolderNotFound(ArtifactNotFound):
    """The volume is there, the folder on it is not (an object store has no folders, and lists none)."""


class StoreUnreachable(StoreError):  # noqa: N818
    """The store did not answer, or not in time."""

    reason = FailureReason.STORE_UNREACHABLE
    retryable = True


class AccessDenied(StoreError):  # noqa: N818
    """The store or the file system refused us."""

    reason = FailureReason.ACCESS_DENIED
    retryable = True


class DigestMismatch(StoreError):  # noqa: N818
    """The content is not what its digest says: truncated, changed or mixed up."""

    reason = FailureReason.DIGEST_MISMATCH
    retryable = False


class ManifestInvalid(StoreError):  # noqa: N818
    """manifest.json is missing beside the files of an adapter, or says something impossible."""

    reason = FailureReason.MANIFEST_INVALID
    retryable = False


class AdapterInvalid(StoreError):  # noqa: N818
    """The files are no LoRA adapter, or one that the engine refuses or would serve otherwise than was meant."""

    reason = FailureReason.ADAPTER_INVALID
    retryable = False


class WeightsNotFinite(StoreError):  # noqa: N818
    """A weight is NaN, infinite, or so large that sums with it become so."""

    reason = FailureReason.WEIGHTS_NOT_FINITE
    retryable = False


class NoSpace(StoreError):  # noqa: N818
    """The disk that should take the files is full."""

    reason = FailureReason.NO_SPACE
    retryable = True


_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_NO_SUCH_PART = re.compile(
    r"416 range not satisfiable|wanted range starting|non-partial response|content.range|requested \d+\.\.",
    re.IGNORECASE,
)
"""What obstore, which has one exception for all of these, says of an answer to a request for a part."""
_METADATA_SERVICE = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|Account must be specified")


@contextmanager
def translated(*, doing: str, uri: str) -> Iterator[None]:
    """Turn what obstore, the file system and a timeout raise into the tree above.

    `doing` completes "While …", for instance "reading manifest.json".
    """
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise ArtifactNotFound(
            f"{uri}: nothing found while {doing}. Check the URI and that the push has finished."
        ) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AccessDenied(_denied(uri, doing)) from error
    except TimeoutError as error:
        raise StoreUnreachable(
            f"{uri}: no answer in time while {doing}. Check that the store is up and that a NetworkPolicy lets this "
            "pod reach it."
        ) from error
    except OSError as error:
        raise from_os_error(error, uri=uri, doing=doing) from error
    except BaseError as error:
        raise _from_obstore(error, uri=uri, doing=doing) from error
    except Exception as error:
        # A panic inside obstore arrives as an exception of no public class; anything else is a defect of ours.
        if type(error).__name__ != "RustPanic":
            raise
        raise StoreUnreachable(f"{uri}: the storage client failed while {doing}: {_first_line(error)}") from error


def is_about_the_part(error: BaseError) -> bool:
    """Tell whether a store answered that it doesn't give the part of an object that it was asked for."""
    return _NO_SUCH_PART.search(str(error)) is not None


def from_os_error(error: OSError, *, uri: str, doing: str) -> StoreError:
    """Return the exception for what the file system said."""
    return _from_errno(error.errno or 0, error.strerror or _first_line(error), uri=uri, doing=doing)


def _from_obstore(error: BaseError, *, uri: str, doing: str) -> StoreError:
    line = _first_line(error)
    if found := _OS_ERROR.search(line):
        return _from_errno(int(found.group(1)), line, uri=uri, doing=doing)
    if _METADATA_SERVICE.search(line):
        return AccessDenied(
            f"{uri}: no credentials for this store while {doing}. Put them into the Secret that the pool's "
            "store.secretRef names (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_NAME and "
            "AZURE_STORAGE_ACCOUNT_KEY, or GOOGLE_SERVICE_ACCOUNT_KEY), or give the pod a cloud identity."
        )
    return StoreUnreachable(
        f"{uri}: the store failed while {doing}: {line}. Check that it is up and that the endpoint in the pool's store "
        "Secret (AWS_ENDPOINT_URL) is right."
    )


def _from_errno(number: int, text: str, *, uri: str, doing: str) -> StoreError:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return ArtifactNotFound(f"{uri}: nothing found while {doing}. Check the URI and that the push has finished.")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(_denied(uri, doing))
    if number in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{uri}: no space left on the disk while {doing}. Free space there or enlarge the volume.")
    return StoreUnreachable(f"{uri}: the file system failed while {doing}: {text}. Check the volume and its mount.")


def _denied(uri: str, doing: str) -> str:
    if uri.startswith(("file:", "pvc:", "/")):
        return f"{uri}: access denied while {doing}. Check the files' owner and mode (pods run as uid and gid 65532)."
    return (
        f"{uri}: access denied while {doing}. Check the keys in the pool's store Secret and that they may read and "
        "list this path; without the right to list, a store answers like this for a missing object too."
    )


_ANSWERED = re.compile(r"((?:status code|status): \d{3}|[Ii]nvalid \w+ response)\b.*", re.DOTALL)
"""What obstore says of an answer, and behind it the answer's own words."""


def _first_line(error: BaseException) -> str:
    """Return the first line, without a word of what a server answered.

    It ends up in conditions that a tenant reads, who chose the server: it may be one that only the pod reaches.
    """
    lines = str(error).strip().splitlines()
    return _ANSWERED.sub(r"\1", lines[0])[:300] if lines else type(error).__name__
