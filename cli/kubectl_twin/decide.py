"""A person's decisions on a twin's versions: approve, reject, go back. Each is an annotation for the operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from bettertherapy_api import names
from kubectl_twin.api import Api, Json, twins_path
from kubectl_twin.candidates import candidates, version_of
from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import Clock, new_token
from kubectl_twin.lookup import find_twin, runs_of
from kubectl_twin.runs import gate_of, gate_text
from kubectl_twin.versions import BASE, Target, default_target, find_target, is_version
from kubectl_twin.views import condition
from kubectl_twin.zones import moment, zone_of

_REACTION_S: Final = 30.0
REASON_LENGTH: Final = 500
_CERTAIN: Final = 8
"""Digits of a digest that no other version of a twin shares."""


def to_decide(twin: Json, runs: Sequence[Json], digest: str | None = None) -> Json:
    """Return the version that waits for the doctor, or with `digest` the one of a validator's task that it names; where
    nothing waits, the best that tasks brought. `runs` are the twin's.

    Raises:
        TwinCliError: there is nothing to decide, or nothing of that digest.
    """
    name, found = twin["metadata"]["name"], (twin.get("status") or {}).get("pendingVersion")
    choice = [version_of(run) for run in candidates(twin, runs)]
    if digest is not None:
        named = [each for each in (found, *choice) if each is not None and is_version(digest, each)]
        if len(named) == 1:
            return dict(named[0])
    elif found is not None or choice:
        return dict(found or choice[0])
    if found is None and not choice:
        raise TwinCliError(nothing_waits(twin))
    there = ", ".join(each["servedName"] for each in (found, *choice) if each is not None)
    raise TwinCliError(
        f"What waits is {there}, not {digest}: a newer version may have come. Look at it: `kubectl twin review {name}`."
    )


def is_certain(digest: str) -> bool:
    """Tell whether what a person wrote for a digest can mean no version but one.

    The operator refuses a version whose first 8 digits are those of another that it knows, the waiting one included.
    """
    digits = re.split(r"[:-]", digest.strip().lower())[-1]
    return re.fullmatch(f"[0-9a-f]{{{_CERTAIN},64}}", digits) is not None


def shown(version: Json) -> str:
    """Return what a doctor looks at once more before she says yes."""
    score = version.get("scorePercent")
    lines = [
        ("version", version["servedName"]), ("digest", version["digest"]), ("made by", version.get("runName") or "-"),
        ("trained from", version.get("parentDigest") or "the base model"),
        ("trained on", version.get("datasetDigest") or "-"), ("score", "-" if score is None else f"{score}%"),
    ]  # fmt: skip
    return "\n".join(f"{label:<13} {said}" for label, said in lines)


def nothing_waits(twin: Json) -> str:
    """Return the sentence for a twin of which no version waits for a decision, with what there is instead."""
    name, status = twin["metadata"]["name"], twin.get("status") or {}
    start = f"No version of {name} waits for a decision."
    if canary := status.get("canaryVersion"):
        weight = status.get("canaryWeightPercent") or 0
        return (
            f"{start} {canary['servedName']} was let through already and is on trial with {weight}% of the patients: "
            f"`kubectl twin rollback {name}` takes it back."
        )
    if (twin["spec"].get("gate") or {}).get("approval") != "Doctor":
        return f"{start} Its new versions ask nobody: set spec.gate.approval to Doctor to be asked."
    gate = gate_of(status.get("lastGate"))
    if gate is not None and gate.verdict != "Promote":
        return f"{start} The last fine-tune did not pass its gate: {gate_text(gate)}."
    zone = zone_of(twin)
    due = moment(status.get("nextFineTuneTime"), zone)
    planned = f" The next fine-tune is at {due} {zone.name}." if status.get("nextFineTuneTime") else ""
    return f"{start}{planned} `kubectl twin history {name}` shows what became of earlier ones."


def approve(
    api: Api, *, namespace: str, name: str, digest: str | None = None, wait: bool = True, clock: Clock | None = None
) -> str:
    """Let the version that waits, or one that a task brought, answer; return what comes of it as a sentence.

    Raises:
        TwinCliError: nothing waits, the twin refuses it, or the operator does not react.
    """
    twin = find_twin(api, namespace=namespace, name=name)
    version = to_decide(twin, runs_of(api, namespace=namespace, name=name), digest)
    served, path = version["servedName"], twins_path(namespace, name)
    waits = _pending(twin) == version["digest"]
    api.patch(
        path,
        _annotations({names.APPROVE_ANNOTATION: version["digest"]}, names.REJECT_ANNOTATION),
    )
    if not wait:
        return f"Approved {served}. `kubectl twin status {name}` follows it."

    def heard(twin: Json) -> str | None:
        status = twin.get("status") or {}
        if (refused := _refused(twin, version["digest"])) is not None:
            raise TwinCliError(f"{served} won't answer after all: {refused}.")
        tried = {(status.get(f"{kind}Version") or {}).get("digest") for kind in ("canary", "active")}
        if version["digest"] in tried or (waits and _pending(twin) != version["digest"]):
            steps = (twin["spec"].get("rollout") or {}).get("steps") or []
            first = f"it gets {steps[0]['weightPercent']}% of the patients first" if steps else "then it takes over"
            return f"Approved {served}. It is verified on every pod, {first}: `kubectl twin status {name}` follows it."
        if (canary := status.get("canaryVersion")) is not None:
            return f"Approved {served}. It begins when {canary['servedName']}, which is on trial, is decided."
        return None

    return _await(api, path, heard, "The approval", clock or Clock())


def reject(
    api: Api, *, namespace: str, name: str, digest: str | None = None, reason: str | None = None, wait: bool = True,
    clock: Clock | None = None,
) -> str:  # fmt: skip
    """Refuse such a version for good, and return what came of it as a sentence; raises as `approve`."""
    if reason is not None and len(reason) > REASON_LENGTH:
        raise TwinCliError(f"The reason has {len(reason)} characters; at most {REASON_LENGTH} are kept.")
    twin, runs = find_twin(api, namespace=namespace, name=name), runs_of(api, namespace=namespace, name=name)
    version = to_decide(twin, runs, digest)
    choice = candidates(twin, runs)
    if digest is None and _pending(twin) is None and len(choice) > 1:
        there = ", ".join(version_of(run)["digest"] for run in choice)
        raise TwinCliError(f"{len(choice)} versions of validators' tasks wait: say which by `--digest`, of {there}.")
    served, path = version["servedName"], twins_path(namespace, name)
    waits = _pending(twin) == version["digest"]
    api.patch(
        path,
        _annotations(
            {names.REJECT_ANNOTATION: version["digest"], names.REJECT_REASON_ANNOTATION: reason},
            names.APPROVE_ANNOTATION,
        ),
    )
    done = f"Rejected {served}: it will never answer. The version that serves goes on."
    if not wait:
        return done

    def heard(twin: Json) -> str | None:
        gone = _pending(twin) != version["digest"] if waits else _refused(twin, version["digest"]) is not None
        return done if gone else None

    return _await(api, path, heard, "The rejection", clock or Clock())


def _annotations(values: Json, dropped: str) -> Json:
    return {"metadata": {"annotations": {**values, dropped: None}}}


def _pending(twin: Json) -> str | None:
    return ((twin.get("status") or {}).get("pendingVersion") or {}).get("digest")


def _refused(twin: Json, digest: str) -> str | None:
    for entry in (twin.get("status") or {}).get("refusedVersions") or []:
        if entry["digest"] == digest:
            return str(entry["message"])
    return None


def _await(api: Api, path: str, heard: Callable[[Json], str | None], what: str, clock: Clock) -> str:
    begun = clock.now()
    while clock.now() - begun < _REACTION_S:
        if (said := heard(api.get(path))) is not None:
            return said
        clock.sleep(0.3)
    raise TwinCliError(
        f"{what} is noted, but the operator has not acted on it within {_REACTION_S:.0f} s: does it run? It acts when "
        "it does."
    )


def rollback(
    api: Api, *, namespace: str, name: str, to: str | None, wait_seconds: float | None,
    on_change: Callable[[str], None], clock: Clock | None = None,
) -> tuple[Target, float | None]:  # fmt: skip
    """Go back to a version; return it and, if it was waited for, after how many seconds patients had it.

    Raises:
        TwinCliError: there is no such version, or it does not answer within `wait_seconds`.
    """
    clock = clock or Clock()
    twin = find_twin(api, namespace=namespace, name=name)
    target = default_target(twin) if to is None else find_target(twin, to)
    # Another token each time: going back to the same version a second time is a new wish.
    asked = f"{target.digest or BASE}@{new_token()}"
    begun = clock.now()
    api.patch(twins_path(namespace, name), {"metadata": {"annotations": {names.ROLLBACK_ANNOTATION: asked}}})
    if wait_seconds is None:
        return target, None
    said, heard = "", False
    while (waited := clock.now() - begun) < wait_seconds:
        twin = api.get(twins_path(namespace, name))
        heard = heard or (twin.get("status") or {}).get("handledRollback") == asked
        if heard and _is_back(twin, target):
            return target, waited
        if not heard and waited > 3 and (problem := _problem(twin)) is not None:
            raise TwinCliError(f"The operator can't do this: {problem}.")
        if (text := _state(twin) if heard else "waiting for the operator") != said:
            said = text
            on_change(text)
        clock.sleep(0.3)
    if not heard:
        raise TwinCliError(
            f"The rollback is noted, but the operator has not acted on it within {wait_seconds:.0f} s: does it run? "
            "It acts when it does."
        )
    raise TwinCliError(
        f"{target.served_name} does not answer yet after {wait_seconds:.0f} s: {said}. The rollback goes on; "
        f"`kubectl twin status {name}` follows it."
    )


def _is_back(twin: Json, target: Target) -> bool:
    status = twin.get("status") or {}
    active = status.get("activeVersion")
    return active is not None and active.get("digest") == target.digest and "canaryVersion" not in status


def _problem(twin: Json) -> str | None:
    found = condition(twin, "RolledBack") or {}
    return str(found.get("message")) if found.get("reason") == "RollbackUnknown" else None


def _state(twin: Json) -> str:
    ready = condition(twin, "Ready") or {}
    return str(ready.get("message") or "waiting for the pods")
