"""Start a fine-tune now, and follow one to its verdict."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bettertherapy_api import names
from kubectl_twin.api import Api, Json, runs_path, twins_path
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.lookup import find_twin, runs_of
from kubectl_twin.runs import is_over, progress_text, under_way

_REACTION_S: Final = 30.0
"""So long the operator has to make the run."""
_SETTLE_S: Final = 3.0
"""What the twin says sooner may be of the time before."""
_OUTAGE_S: Final = 120.0
"""So long the API server may be away while a run is followed."""


@dataclass(frozen=True)
class Clock:
    """Time, which tests make pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def new_token() -> str:
    """Return a value that no earlier request had."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def start(api: Api, *, namespace: str, name: str, token: str, clock: Clock | None = None) -> str:
    """Ask the operator for a run and return its name once it exists.

    Raises:
        TwinCliError: something stands in its way; then nothing is left asked for. Or the operator does not react.
    """
    clock = clock or Clock()
    twin = find_twin(api, namespace=namespace, name=name)
    if (going := under_way(runs_of(api, namespace=namespace, name=name))) is not None:
        raise TwinCliError(
            f"A twin has one fine-tune at a time, and {going['metadata']['name']} has not ended "
            f"({progress_text(going)}). Follow it: `kubectl twin finetune {name}`."
        )
    if (canary := (twin.get("status") or {}).get("canaryVersion")) is not None:
        raise TwinCliError(
            f"{canary['servedName']} is on trial: what is trained now would be compared with the version before it. "
            f"Wait until it has taken over (`kubectl twin status {name}`), or take it back: `kubectl twin rollback "
            f"{name}`."
        )
    path, run = twins_path(namespace, name), names.asked_run_name(name, token)
    api.patch(path, _annotation(token))
    begun = clock.now()
    while (waited := clock.now() - begun) < _REACTION_S:
        if api.find(runs_path(namespace, run)) is not None:
            return run
        obstacle = _obstacle(api.get(path)) if waited >= _SETTLE_S else None
        if obstacle is not None:
            api.patch(path, _annotation(None))
            if api.find(runs_path(namespace, run)) is not None:
                return run  # it came between the two
            raise TwinCliError(f"Nothing was started: {obstacle}.")
        clock.sleep(0.3)
    raise TwinCliError(
        f"The operator has not reacted within {_REACTION_S:.0f} s: does it run? The fine-tune begins when it does; "
        f"`kubectl annotate twin {name} -n {namespace} {names.FINETUNE_NOW_ANNOTATION}-` takes the request back."
    )


def _annotation(value: str | None) -> Json:
    return {"metadata": {"annotations": {names.FINETUNE_NOW_ANNOTATION: value}}}


def _obstacle(twin: Json) -> str | None:
    """Return why the twin's next fine-tune does not begin, as the operator says it."""
    said = (twin.get("status") or {}).get("fineTuneObstacle")
    return None if said is None else str(said["message"])


def to_follow(api: Api, *, namespace: str, name: str) -> str | None:
    """Return the name of the twin's run that has not ended; None when there is none."""
    find_twin(api, namespace=namespace, name=name)
    going = under_way(runs_of(api, namespace=namespace, name=name))
    return None if going is None else str(going["metadata"]["name"])


def follow(
    api: Api, *, namespace: str, run: str, on_change: Callable[[Json], None], clock: Clock | None = None
) -> Json:
    """Look at the run each second, call `on_change` with it whenever it says something new, and return it at its end.

    Raises:
        TwinCliError: it was deleted, or the API server stays away.
    """
    clock = clock or Clock()
    said, answered = None, clock.now()
    while True:
        try:
            found = api.find(runs_path(namespace, run))
            answered = clock.now()
        except ApiError:
            raise
        except TwinCliError:
            if clock.now() - answered > _OUTAGE_S:
                raise
            clock.sleep(3)
            continue
        if found is None:
            raise TwinCliError(f"FineTuneRun {run} was deleted before it ended.")
        if (text := progress_text(found)) != said:
            said = text
            on_change(found)
        if is_over(found):
            return found
        clock.sleep(1)
