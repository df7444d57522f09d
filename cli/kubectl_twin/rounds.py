"""A validator's rounds: those that the API server knows, and what the gateway tells an operator of one."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from bettertherapy_api import names
from bettertherapy_api.document import Document
from bettertherapy_api.faults import first_fault
from bettertherapy_api.round_view import MinerLine, MinerView, RoundView
from kubectl_twin.api import Api, Json, core_path, rounds_path, validator_path
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.finetune import Clock
from kubectl_twin.forward import Forward
from kubectl_twin.gateway import KEY_VARIABLE, gateway_pod
from kubectl_twin.lookup import near

_MOST_BYTES: Final = 64 * 1024 * 1024
_POLL_SECONDS: Final = 1.0
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class RoundRow:
    """One line of `kubectl twin rounds`."""

    name: str
    validator: str
    complete: str
    """True, False or Unknown."""
    reason: str
    """Why it is not complete; empty for one that is."""
    scored: str
    best: str
    weights: str
    duration: str
    created: str | None
    failed: bool = False


def row_of(made: Json) -> RoundRow:
    """Return a round's line."""
    status = made.get("status") or {}
    conditions = {each.get("type"): each for each in status.get("conditions") or []}
    complete, running = conditions.get("Complete", {}), conditions.get("Running", {})
    failed = conditions.get("Failed", {}).get("reason")
    return RoundRow(
        name=made["metadata"]["name"],
        validator=((made.get("spec") or {}).get("validatorRef") or {}).get("name") or "-",
        complete=complete.get("status") or "Unknown",
        reason="" if complete.get("status") == "True" else str(failed or running.get("reason") or ""),
        scored=status.get("scored") or "-",
        best=status.get("best") or "-",
        weights=(status.get("weights") or {}).get("state") or "-",
        duration=status.get("duration") or "-",
        created=made["metadata"].get("creationTimestamp"),
        failed=conditions.get("Failed", {}).get("status") == "True",
    )


def reference(name: str) -> str:
    """Return a round's name as `kubectl get -o name` writes it."""
    return f"validatorround.bettertherapy.io/{name}"


def rounds_of(api: Api, *, namespace: str, validator: str | None) -> list[Json]:
    """Return the rounds, newest first; raises as `Api.items`."""
    found = api.items(rounds_path(namespace), fields=f"spec.validatorRef.name={validator}" if validator else None)
    by_age = sorted(found, key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
    return by_age[::-1]


def find_round(api: Api, *, namespace: str, name: str) -> Json:
    """Return the round.

    Raises:
        TwinCliError: there is none of that name; the message lists near names.
    """
    made = api.find(rounds_path(namespace, name))
    if made is not None:
        return made
    known = [str(each["metadata"]["name"]) for each in api.items(rounds_path(namespace))]
    close = near(name, known)
    meant = f" Did you mean {' or '.join(close)}?" if close else " `kubectl twin rounds` lists those that there are."
    raise TwinCliError(f"There is no round {name} in namespace {namespace}.{meant}")


def read_round(api: Api, made: Json, *, namespace: str, key: str | None = None) -> RoundView:
    """Ask the gateway for all miners of a round; raises TwinCliError."""
    return _ask(api, made, RoundView, "", namespace=namespace, key=key)


def read_miner(api: Api, made: Json, *, hotkey: str, namespace: str, key: str | None = None) -> MinerView:
    """Ask the gateway for one miner's answers; raises TwinCliError."""
    return _ask(api, made, MinerView, f"/miners/{quote(hotkey, safe='')}", namespace=namespace, key=key)


def require_same(made: Json, view: RoundView) -> None:
    """Raise TwinCliError where the ledger's round of that name is another than the one that there is now."""
    uid = made["metadata"].get("uid")
    if uid is None or view.uid == uid:
        return
    raise TwinCliError(
        f"Nothing of round {view.name} is stored yet: what the ledger has is an earlier round of that name, which "
        f"began {view.start_time}. Ask again once it is under way."
    )


def hotkey_meant(view: RoundView, said: str) -> str:
    """Return the hotkey that `said` names: whole, by its beginning, or by the UID that it had.

    Raises:
        TwinCliError: none, or more than one, or none is known yet.
    """
    found = [each for each in view.miners if each.hotkey == said or (said.isdigit() and each.uid == int(said))]
    found = found or [each for each in view.miners if each.hotkey.startswith(said)]
    if len(found) == 1:
        return found[0].hotkey
    if view.results_digest is None:
        raise TwinCliError(
            f"Round {view.name} has no results yet, so no miner's are shown: `kubectl twin rounds` says how far it is."
        )
    if found:
        shown = ", ".join(f"{each.hotkey} (uid {each.uid})" for each in found[:5])
        raise TwinCliError(f"{said} is the beginning of {len(found)} miners' hotkeys: {shown}. Write more of it.")
    raise TwinCliError(f"Round {view.name} asked no miner {said}: `kubectl twin round {view.name}` lists them.")


def ranked(view: RoundView) -> Sequence[MinerLine]:
    """Return the miners, best first; those without a score last."""
    return sorted(view.miners, key=lambda each: (each.score is None, -(each.score or 0.0), each.uid))


@dataclass(frozen=True)
class Compared:
    """What reckoning once more found."""

    digest: str | None
    before: str | None
    same: bool
    message: str | None


def recompute(
    api: Api, made: Json, *, namespace: str, timeout_seconds: float, clock: Clock, token: str | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Compared:  # fmt: skip
    """Have the scores reckoned once more from the stored answers, and wait for what comes out.

    Raises:
        TwinCliError: the round is not complete, its validator is gone, or nothing came in time.
    """
    name = made["metadata"]["name"]
    status = made.get("status") or {}
    if not status.get("resultsDigest"):
        raise TwinCliError(f"Round {name} has no results: `kubectl -n {namespace} describe round {name}` says why.")
    token = token or secrets.token_hex(8)
    path = rounds_path(namespace, name)
    api.patch(path, {"metadata": {"annotations": {names.RECOMPUTE_ANNOTATION: token}}})
    until = clock.now() + timeout_seconds
    while clock.now() < until:
        waiting()
        clock.sleep(_POLL_SECONDS)
        status = api.get(path).get("status") or {}
        said = status.get("recomputed") or {}
        if said.get("token") == token:
            return Compared(
                digest=said.get("digest"), before=status.get("resultsDigest"), same=bool(said.get("same")),
                message=said.get("message"),
            )  # fmt: skip
    raise TwinCliError(
        f"Round {name} was not reckoned again within {timeout_seconds:.0f} s: `kubectl -n {namespace} get jobs -l "
        f"{names.LABEL_ROUND}={name}` shows how far it is; is the operator running?"
    )


def operator_key(
    api: Api, *, namespace: str, validator: str, key: str | None, environ: Mapping[str, str] = os.environ
) -> str:
    """Return a key of the gateway that shows rounds: the given one, the environment's, or the Secret's.

    Raises:
        TwinCliError: no Secret, none in it, or no right to read it.
    """
    if found := key or environ.get(KEY_VARIABLE):
        return found
    spec = api.get(validator_path(namespace, validator)).get("spec") or {}
    named = ((spec.get("gateway") or {}).get("keysSecretRef") or {}).get("name")
    name = named or names.gateway_keys_name(validator)
    else_set = f"make one by `python -m neurons.validator.gateway.keys NAME --role operator` and set {KEY_VARIABLE}"
    try:
        secret = api.find(core_path("secrets", namespace, name))
    except ApiError as error:
        if error.status == 403:
            raise TwinCliError(
                f"You may not read Secret {name} in namespace {namespace}, which holds an operator's key of validator "
                f"{validator}'s gateway. Ask an administrator for the right to get it, or {else_set}."
            ) from error
        raise
    value = ((secret or {}).get("data") or {}).get(names.OPERATOR_KEY_ITEM)
    token = base64.b64decode(value).decode("utf-8", errors="replace").strip() if value else ""
    if token:
        return token
    raise TwinCliError(f"Secret {name} holds no operator's key in clear under `{names.OPERATOR_KEY_ITEM}`: {else_set}.")


def _ask(api: Api, made: Json, kind: type[D], rest: str, *, namespace: str, key: str | None) -> D:
    name, validator = made["metadata"]["name"], made["spec"]["validatorRef"]["name"]
    token = operator_key(api, namespace=namespace, validator=validator, key=key)
    pod = gateway_pod(api, namespace=namespace, validator=validator)
    forward = api.forward(namespace=namespace, pod=pod, port=names.GATEWAY_PORT)
    far_end = f"validator {validator}'s gateway"
    try:
        document = fetch(forward, f"/v1/rounds/{quote(name, safe='')}{rest}", token=token, far_end=far_end)
    finally:
        forward.close()
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        raise TwinCliError(
            f"What {far_end} says of round {name} can't be read ({first_fault(error)}): use the kubectl-twin of the "
            "gateway's release."
        ) from error


def fetch(forward: Forward, path: str, *, token: str, far_end: str, timeout_seconds: float = 60.0) -> bytes:
    """GET one document over a forwarded connection.

    Raises:
        TwinCliError: it was refused, or the connection broke.
    """
    connection = http.client.HTTPConnection("forwarded")
    connection.sock = forward.socket
    connection.sock.settimeout(timeout_seconds)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Connection": "close"})
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except TimeoutError as error:
        raise TwinCliError(f"Nothing came from {far_end} for {timeout_seconds:.0f} s: try again.") from error
    except (http.client.HTTPException, OSError) as error:
        raise TwinCliError(f"The connection to {far_end} broke: {forward.error or error}. Ask again.") from error
    if response.status != http.HTTPStatus.OK:
        raise TwinCliError(f"{far_end} answered {response.status}: {_said(body)}.")
    return body


def _said(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
        return str(document["error"]["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace") or "nothing"


def held_seconds(view: RoundView) -> float | None:
    """Return how long the round took; None for one that is not over."""
    if view.completion_time is None:
        return None
    ends = datetime.fromisoformat(view.completion_time) - datetime.fromisoformat(view.start_time)
    return max(0.0, ends.total_seconds())
