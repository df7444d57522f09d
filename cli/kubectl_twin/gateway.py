"""Ask a twin by a validator's gateway, which asks several miners: who answered, whether that is so, how all did."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bettertherapy_api import names
from kubectl_twin.api import Api, Json, core_path, validator_path
from kubectl_twin.ask import Question, ready_pod
from kubectl_twin.chat import Asked, Said, body_of, converse
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.lookup import find_twin
from kubectl_twin.proof import Answered, Proof, prove

KEY_VARIABLE: Final = "TWIN_GATEWAY_KEY"
"""Environment variable with an API key of the gateway; without it the one of the validator's Secret is taken."""


@dataclass(frozen=True)
class MinerResult:
    """How one miner did that was asked."""

    uid: int
    hotkey: str
    score: float | None
    """0..1; None where its answer couldn't be used."""
    failure: str | None
    """Why not, as docs/gateway.md lists it."""
    seconds: float


@dataclass(frozen=True)
class GatewayAnswer:
    """The best answer, whose it is, and what it was chosen from."""

    text: str
    """What the patient reads: the notice of an emergency, where there is one, and then the miner's words."""
    notice_characters: int
    doctor: str
    validator: str
    answered: bool
    """Whether a miner answered: in an emergency the notice comes all the same."""
    uid: int | None
    hotkey: str | None
    adapter_digest: str | None
    """None when the base model itself answered, or nobody."""
    score: float | None
    results: tuple[MinerResult, ...]
    """All that were asked, the best first."""
    receipt: str | None
    proof: Proof | None
    session_id: str | None
    answer_id: str | None
    question_id: str | None
    first_token_seconds: float | None
    seconds: float
    tokens: int | None
    finish_reason: str | None

    @property
    def said(self) -> str:
        """The miner's own words, which its receipt covers."""
        return self.text[self.notice_characters :]


def ask_through(
    api: Api,
    question: Question,
    *,
    validator: str,
    key: str | None = None,
    on_text: Callable[[str], None] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> GatewayAnswer:
    """Ask by the gateway of `validator`, call `on_text` with each piece as it arrives, and check the receipt.

    `key`: an API key of the gateway; else `KEY_VARIABLE`, else the one in the validator's Secret.

    Raises:
        TwinCliError: with a sentence that says what is missing and what to do.
    """
    namespace = question.namespace
    spec = api.get(validator_path(namespace, validator)).get("spec") or {}
    twin = find_twin(api, namespace=namespace, name=question.twin)
    token = key or environ.get(KEY_VARIABLE) or api_key(api, spec, namespace=namespace, validator=validator)
    pod = gateway_pod(api, namespace=namespace, validator=validator)
    forward = api.forward(namespace=namespace, pod=pod, port=names.GATEWAY_PORT)
    asked = Asked(
        body=body_of(
            question.twin,
            question.messages,
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            stream=question.stream,
        ),
        token=token,
        headers={},
        timeout_seconds=question.timeout_seconds,
        far_end=f"validator {validator}'s gateway",
        silence=f"Nothing came from {question.twin} for {question.timeout_seconds:.0f} s through the gateway: "
        f"`kubectl -n {namespace} logs {pod}`.",
    )
    try:
        said = converse(forward, asked, emit=on_text)
    finally:
        forward.close()
    return _answer(said, question, validator=validator, doctor=twin["spec"]["doctor"]["name"])


def api_key(api: Api, spec: Json, *, namespace: str, validator: str) -> str:
    """Return the API key that stands in the validator's Secret.

    Raises:
        TwinCliError: no Secret, none in it, or no right to read it.
    """
    named = ((spec.get("gateway") or {}).get("keysSecretRef") or {}).get("name")
    name = named or names.gateway_keys_name(validator)
    else_set = f"or set {KEY_VARIABLE} to a key that validator {validator}'s gateway knows"
    try:
        secret = api.find(core_path("secrets", namespace, name))
    except ApiError as error:
        if error.status == 403:
            raise TwinCliError(
                f"You may not read Secret {name} in namespace {namespace}, which holds the key of validator "
                f"{validator}'s gateway. Ask an administrator for the right to get it, {else_set}."
            ) from error
        raise
    if secret is None:
        wait = "create it" if named else f"`kubectl -n {namespace} describe validator {validator}` says why"
        raise TwinCliError(f"Secret {name}, which holds the gateway's keys, does not exist: {wait}, {else_set}.")
    value = (secret.get("data") or {}).get(names.KEY_ITEM)
    token = base64.b64decode(value).decode("utf-8", errors="replace").strip() if value else ""
    if token:
        return token
    # A Secret of a person's own has hashes alone, as it should.
    raise TwinCliError(f"Secret {name} holds no key in clear under `{names.KEY_ITEM}`: put one there, {else_set}.")


def gateway_pod(api: Api, *, namespace: str, validator: str) -> str:
    """Return the name of a ready gateway pod.

    Raises:
        TwinCliError: there is none.
    """
    selector = f"{names.LABEL_VALIDATOR}={validator},{names.LABEL_COMPONENT}=gateway"
    pods = api.items(core_path("pods", namespace), labels=selector)
    if (ready := ready_pod(pods)) is not None:
        return ready
    look = f"`kubectl -n {namespace} describe validator {validator}` says why"
    count = f"None of validator {validator}'s {len(pods)} gateway pods is ready" if pods else (
        f"Validator {validator} has no gateway pod"
    )  # fmt: skip
    raise TwinCliError(f"{count}: {look}.")


def _answer(said: Said, question: Question, *, validator: str, doctor: str) -> GatewayAnswer:
    more = said.extension
    notice = int((more.get("notice") or {}).get("characters") or 0)
    miner = more.get("miner") or {}
    adapter, receipt = more.get("adapter"), more.get("receipt")
    proof = None
    if receipt:
        # The gateway says whose answer it is; the receipt has to prove just that.
        proof = prove(
            Answered(
                receipt=receipt,
                messages=question.messages,
                text=said.text[notice:],
                twin=question.twin,
                adapter=adapter,
                hotkey=miner.get("hotkey"),
            )
        )
    return GatewayAnswer(
        text=said.text,
        notice_characters=notice,
        doctor=doctor,
        validator=validator,
        answered=bool(more.get("answered", True)),
        uid=miner.get("uid"),
        hotkey=miner.get("hotkey"),
        adapter_digest=adapter,
        score=more.get("score"),
        results=tuple(_result(each) for each in more.get("ranking") or ()),
        receipt=receipt,
        proof=proof,
        session_id=more.get("sessionId"),
        answer_id=more.get("answerId"),
        question_id=more.get("questionId"),
        first_token_seconds=said.first_token_seconds,
        seconds=said.seconds,
        tokens=said.tokens,
        finish_reason=said.finish_reason,
    )


def _result(entry: Json) -> MinerResult:
    return MinerResult(
        uid=int(entry["uid"]),
        hotkey=str(entry["hotkey"]),
        score=entry.get("score"),
        failure=entry.get("failure"),
        seconds=float(entry["seconds"]),
    )
