"""Makes the volumes of the StorageClass ``standard`` available again after their claims are gone, and empty."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from localcluster.apiclient import ApiClient, ApiError
from localcluster.config import WORKLOAD_UID

_COLLECTION = "/api/v1/persistentvolumes"
_RETRY_S = 2.0


def prepare(folder: Path) -> None:
    """Make ``folder`` an empty one that the project's containers may write to."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chown(folder, WORKLOAD_UID, WORKLOAD_UID)
    folder.chmod(0o777)


def recycle(client: ApiClient, volume: dict[str, Any], *, root: Path) -> bool:
    """Empty a released volume and offer it again. Other volumes, and other people's, are left alone."""
    name = volume["metadata"]["name"]
    path = Path(volume["spec"].get("hostPath", {}).get("path", "/"))
    if volume.get("status", {}).get("phase") != "Released" or path != root / name:
        return False
    prepare(path)
    claim = {"spec": {"claimRef": None}}
    client.request("PATCH", f"{_COLLECTION}/{name}", claim, content_type="application/merge-patch+json")
    return True


def main() -> None:
    """Follow the volumes for ever."""
    client, root = ApiClient(Path(sys.argv[1])), Path(sys.argv[2])
    while True:
        try:
            for event in client.watch(_COLLECTION):
                if event["type"] in {"ADDED", "MODIFIED"} and recycle(client, event["object"], root=root):
                    print(f"recycled {event['object']['metadata']['name']}", flush=True)
        except (ApiError, OSError, http.client.HTTPException, ValueError) as error:
            print(f"watch ended: {error}", flush=True)
            time.sleep(_RETRY_S)


if __name__ == "__main__":
    main()
