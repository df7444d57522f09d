from __future__ import annotations

import errno
import re

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

from neurons.store import AccessDenied, ArtifactNotFound, NoSpace, StoreError, StoreUnreachable
from neurons.store.errors import translated


# The texts are those that obstore 0.12 raised against a full tmpfs, a foreign file, a closed port and no credentials.
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (GenericError("Unable to copy data to file: No space left on device (os error 28)"), NoSpace),
        (GenericError("Unable to open file /x: Permission denied (os error 13)"), AccessDenied),
        (GenericError("Unable to open file /x: Read-only file system (os error 30)"), AccessDenied),
        (GenericError("Unable to open file /f/y: Not a directory (os error 20)"), ArtifactNotFound),
        (GenericError("Generic S3 error: Error performing GET http://h/ - HTTP error"), StoreUnreachable),
        (GenericError("Error performing PUT http://169.254.169.254/latest/api/token in 3ms"), AccessDenied),
        (GenericError("Generic MicrosoftAzure error: Account must be specified"), AccessDenied),
        (PermissionDeniedError("403"), AccessDenied),
        (UnauthenticatedError("401"), AccessDenied),
        (FileNotFoundError("x"), ArtifactNotFound),
        (TimeoutError(), StoreUnreachable),
        (OSError(errno.EDQUOT, "quota"), NoSpace),
        (OSError(errno.EIO, "input/output"), StoreUnreachable),
    ],
)
def test_what_the_libraries_raise_gets_a_reason(raised: Exception, expected: type[StoreError]) -> None:
    with pytest.raises(expected), translated(doing="reading", uri="s3://bucket/x"):
        raise raised


def test_a_defect_of_ours_is_not_hidden() -> None:
    with pytest.raises(KeyError), translated(doing="reading", uri="s3://bucket/x"):
        raise KeyError("x")


def test_a_debug_dump_stays_out_of_the_message() -> None:
    with pytest.raises(StoreUnreachable) as caught, translated(doing="reading", uri="s3://bucket/x"):
        raise GenericError("Generic S3 error: no\n\nDebug source:\nGeneric {\n secret")
    assert "Debug" not in str(caught.value)


def test_the_file_system_and_a_remote_store_get_different_advice() -> None:
    texts = []
    for uri in ("pvc://claim/x", "s3://bucket/x"):
        with pytest.raises(AccessDenied) as caught, translated(doing="reading", uri=uri):
            raise PermissionDeniedError("no")
        texts.append(str(caught.value).removeprefix(uri))
    assert "65532" in texts[0]
    assert "Secret" in texts[1]


@pytest.mark.parametrize(
    "said",
    [
        "Generic S3 error: Error performing GET http://h/b/x in 7ms - Server returned non-2xx status code: 500 "
        "Internal Server Error: THE-BODY",
        "Generic S3 error: Error performing list request: Error performing GET http://h/b in 6ms - Server returned "
        "non-2xx status code: 418 I'm a teapot: THE-BODY",
        'Generic S3 error: Got invalid list response: invalid type: string "THE-BODY", expected struct ListResponse',
        "Generic S3 error: Got invalid multipart response: THE-BODY",
    ],
)
def test_no_word_of_what_a_server_answered_is_repeated(said: str) -> None:
    """As obstore says it; a tenant who names the store reads what comes of it."""
    with pytest.raises(StoreUnreachable) as caught, translated(doing="reading", uri="s3://bucket/x"):
        raise GenericError(said)
    assert "BODY" not in str(caught.value)
    assert re.search(r"status code: [0-9]{3}|invalid \w+ response", str(caught.value))
