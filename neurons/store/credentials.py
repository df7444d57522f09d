"""The store's credentials as its Secret has them now: a mounted Secret follows a rotation, a pod's variables don't."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bettertherapy_api import names

_KEYS: Final = {
    "s3": (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT"),
}  # fmt: skip
"""What `locations` names, by scheme. Anything else of the Secret counts as the pod's variables, from its start on."""
_LARGEST: Final = 64 * 1024


def mounted_credentials(uri: str, *, folder: Path | None = None) -> dict[str, str]:
    """Return what the mounted Secret holds for a store of this scheme, by variable; empty without one.

    A file is read anew each time. The kubelet swaps all of a Secret's files at once, but two may be read on either side
    of that: then the store refuses, and the caller's next try reads one pair.
    """
    folder = folder or Path(names.STORE_SECRET_DIR)
    found = {}
    for name in _KEYS.get(uri.partition("://")[0], ()):
        try:
            with (folder / name).open("rb") as file:
                text = file.read(_LARGEST).decode().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            found[name] = text
    return found
