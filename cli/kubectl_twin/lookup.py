"""Find twins by name, and say which names are near when there is none."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from kubectl_twin.api import Api, Json, runs_path, twins_path
from kubectl_twin.errors import ApiError, TwinCliError

_SHOWN = 5


def find_twin(api: Api, *, namespace: str, name: str) -> Json:
    """Return the twin.

    Raises:
        TwinCliError: there is none of that name; the message lists near names.
    """
    twin = api.find(twins_path(namespace, name))
    if twin is not None:
        return twin
    here = [str(item["metadata"]["name"]) for item in api.items(twins_path(namespace))]
    elsewhere: list[str] = []
    if not near(name, here):
        try:
            elsewhere = [
                str(item["metadata"]["namespace"])
                for item in api.items(twins_path(None))
                if item["metadata"]["name"] == name
            ]
        except ApiError:  # may not look into other namespaces; then there is nothing to say about them
            elsewhere = []
    raise TwinCliError(no_such_twin(name, namespace=namespace, here=here, elsewhere=elsewhere))


def runs_of(api: Api, *, namespace: str, name: str) -> list[Json]:
    """Return the twin's FineTuneRuns that have not expired, newest first; raises as `Api.items`."""
    try:
        found = api.items(runs_path(namespace), fields=f"spec.twinRef.name={name}")
    except ApiError as error:
        if error.status != 400:
            raise
        # Definitions of an older operator don't select by this field.
        found = [run for run in api.items(runs_path(namespace)) if run["spec"]["twinRef"]["name"] == name]
    return sorted(found, key=lambda run: (run["metadata"].get("creationTimestamp", ""), run["metadata"]["name"]))[::-1]


def near(name: str, known: Sequence[str]) -> list[str]:
    """Return the known names that `name` may have meant, best first."""
    close = difflib.get_close_matches(name, known, n=_SHOWN, cutoff=0.6)
    words = {word for word in name.lower().split("-") if len(word) > 2}
    shared = [other for other in known if other not in close and words & set(other.split("-"))]
    return (close + shared)[:_SHOWN]


def no_such_twin(name: str, *, namespace: str, here: Sequence[str], elsewhere: Sequence[str]) -> str:
    """Return the sentence for a twin that does not exist."""
    start = f"There is no twin {name} in namespace {namespace}."
    if close := near(name, here):
        return f"{start} Did you mean {' or '.join(close)}?"
    if elsewhere:
        return f"{start} There is one in {' and '.join(elsewhere)}: add `-n {elsewhere[0]}`."
    if here:
        more = "" if len(here) <= _SHOWN else f" and {len(here) - _SHOWN} more (`kubectl twin list`)"
        return f"{start} These are: {', '.join(sorted(here)[:_SHOWN])}{more}."
    return f"{start} It has no twins at all; `kubectl twin list -A` shows those of all namespaces."
