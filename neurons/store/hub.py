"""The Hugging Face hub as a place to take from: hf://owner/name, with its errors in our words."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from neurons.store.errors import AccessDenied, ArtifactNotFound, StoreUnreachable, from_os_error
from neurons.store.hashing import file_digest

SCHEME: Final = "hf://"
SECONDS: Final = 30.0
"""Longest wait for the hub's answer about what a repository holds."""
_HUB: Final = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?/?")
_BELOW: Final = re.compile(r"(?P<repo>hf://[\w.-]+/[\w.-]+)/[^@]+(?:@.*)?")
_LARGEST: Final = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class HubUri:
    """A repository on the hub, and the revision that is asked for, if any."""

    repo: str
    revision: str | None


def parse_hub_uri(uri: str) -> HubUri:
    """Read hf://owner/name or hf://owner/name@revision, as @refs/pr/1. Raises ArtifactNotFound."""
    match = _HUB.fullmatch(uri)
    if match is None:
        if below := _BELOW.fullmatch(uri):
            raise ArtifactNotFound(
                f"{uri!r} names a folder in a repository, of which only the top is read. Download that folder and name "
                f"it, or name {below['repo']}."
            )
        raise ArtifactNotFound(f"{uri!r} names no model: expected hf://owner/name or hf://owner/name@revision.")
    return HubUri(match["repo"], match["revision"])


def download(uri: str, folder: Path, *, names: tuple[str, ...]) -> None:
    """Bring the files of these names that lie at the top of a repository to `folder`; blocks. Raises StoreError.

    Large files are held against the digest that the hub keeps of them.
    """
    _check_client(uri)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415 - only hf:// needs it

    at = parse_hub_uri(uri)
    revision = at.revision or "main"
    with hub_errors(uri, revision):
        info = HfApi().model_info(at.repo, revision=revision, files_metadata=True, timeout=SECONDS)
        for file in info.siblings or []:
            if file.rfilename not in names:
                continue
            if (file.size or 0) > _LARGEST:
                raise ArtifactNotFound(f"{uri}: {file.rfilename} has {file.size} bytes, which is no adapter's.")
            path = Path(hf_hub_download(at.repo, file.rfilename, revision=info.sha, local_dir=folder))
            if file.lfs and f"sha256:{file.lfs['sha256']}" != file_digest(path)[0]:
                raise StoreUnreachable(f"{uri}: {file.rfilename} arrived damaged. Fetch it again.")


def tensor_shapes(uri: str) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each tensor of a model on the hub, from headers alone; blocks. Raises StoreError."""
    _check_client(uri)
    from huggingface_hub import HfApi, errors  # noqa: PLC0415

    at = parse_hub_uri(uri)
    with hub_errors(uri, at.revision or "main"):
        try:
            files = HfApi().get_safetensors_metadata(at.repo, revision=at.revision).files_metadata
        except (errors.NotASafetensorsRepoError, errors.SafetensorsParsingError) as error:
            raise ArtifactNotFound(f"{uri}: it has no safetensors weights to compare with.") from error
    return {
        name: (str(tensor.dtype), tuple(tensor.shape))
        for file in files.values()
        for name, tensor in file.tensors.items()
    }


def _check_client(uri: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ArtifactNotFound(f"{uri}: reading from the hub needs the package huggingface_hub. Install it here.")


@contextmanager
def hub_errors(uri: str, revision: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into the store's exceptions."""
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.GatedRepoError as error:
        raise AccessDenied(
            f"{uri}: this model is gated. Accept its terms on the hub and put HF_TOKEN into the pool's store Secret "
            "(or into this shell's environment)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ArtifactNotFound(
            f"{uri}: there is no revision {revision!r}. Check the URI, or baseModel.revision."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ArtifactNotFound(
            f"{uri}: the hub knows no such model, or it is private. Check the URI, and HF_TOKEN in the pool's store "
            "Secret (or in this shell's environment)."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise from_os_error(error, uri=uri, doing="downloading it") from error
        raise StoreUnreachable(_hub_failed(uri, error)) from error
    # The base of its HTTP client's errors, whichever client that is; imported there, though not in __all__.
    except (errors.HTTPError, ValueError) as error:  # type: ignore[attr-defined]
        raise StoreUnreachable(_hub_failed(uri, error)) from error


def _hub_failed(uri: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0][:200]
    return (
        f"{uri}: the model hub failed: {first}. Check that it can be reached from here (HF_ENDPOINT, proxies, "
        "NetworkPolicy), or mirror the model into your own store."
    )
