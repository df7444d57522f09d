"""What becomes of one twin, state by state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kubectl_twin.api import Api, Json, twins_path
from kubectl_twin.errors import ApiError, TwinCliError

_GONE: Final = 410


def states(api: Api, twin: Json, *, namespace: str) -> Iterator[Json]:
    """Yield the twin each time it has changed, until it is deleted.

    Raises:
        TwinCliError: it was deleted, or the API server went away.
    """
    name, since = twin["metadata"]["name"], twin["metadata"]["resourceVersion"]
    while True:
        try:
            for event, thing in api.watch(twins_path(namespace), since=since, fields=f"metadata.name={name}"):
                since = thing["metadata"]["resourceVersion"]
                if event == "DELETED":
                    raise TwinCliError(f"{name} was deleted.")
                if event != "BOOKMARK":
                    yield thing
        except ApiError as error:
            if error.status != _GONE:
                raise
            twin = api.get(twins_path(namespace, name))
            since = twin["metadata"]["resourceVersion"]
            yield twin
