"""Ask a twin a question: find a pool that serves it, take an access token, reach its miner, stream the answer."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bettertherapy_api import names
from kubectl_twin.api import Api, Json, core_path, pool_path
from kubectl_twin.chat import Asked, body_of, converse
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.forward import Forward
from kubectl_twin.lookup import find_twin
from kubectl_twin.views import condition, is_pod_ready

DEFAULT_MAX_TOKENS: Final = 256


@dataclass(frozen=True)
class Question:
    """What to ask whom."""

    twin: str
    text: str
    namespace: str
    pool: str | None = None
    """None: any pool that serves the twin."""
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    """None: the engine's default."""
    stream: bool = True
    timeout_seconds: float = 120.0
    """Longest silence, before the first token and between two."""

    @property
    def messages(self) -> list[Json]:
        """The question as a conversation."""
        return [{"role": "user", "content": self.text}]


@dataclass(frozen=True)
class Answer:
    """What came back, and from which weights."""

    text: str
    doctor: str
    pool: str
    adapter_digest: str | None
    """None when the base model itself answered."""
    served_name: str | None
    pod: str | None
    """The engine pod that answered."""
    first_token_seconds: float | None
    """From sending the request to the first text; None without streaming."""
    seconds: float
    tokens: int | None
    finish_reason: str | None

    @property
    def tokens_per_second(self) -> float | None:
        """Speed after the first token; None when it could not be measured."""
        if self.tokens is None or self.tokens < 2 or self.first_token_seconds is None:
            return None
        elapsed = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / elapsed if elapsed > 0 else None


def ask(api: Api, question: Question, *, on_text: Callable[[str], None] | None = None) -> Answer:
    """Ask, call `on_text` with each piece of the answer as it arrives, and return the whole.

    Raises:
        TwinCliError: with a sentence that says what is missing and what to do.
    """
    twin = find_twin(api, namespace=question.namespace, name=question.twin)
    pool = choose_pool(twin, question.pool)
    token = access_token(api, namespace=question.namespace, pool=pool)
    pod = miner_pod(api, namespace=question.namespace, pool=pool)
    forward = api.forward(namespace=question.namespace, pod=pod, port=names.MINER_PORT)
    try:
        return _converse(forward, question, token=token, pool=pool, doctor=twin["spec"]["doctor"]["name"], emit=on_text)
    finally:
        forward.close()


def choose_pool(twin: Json, wanted: str | None) -> str:
    """Return the pool to ask: the wanted one, else the first that serves the twin.

    Raises:
        TwinCliError: no pool serves it, or not the wanted one.
    """
    name = twin["metadata"]["name"]
    pools: list[str] = (twin.get("status") or {}).get("pools") or []
    if not pools:
        for kind in ("Serving", "Ready"):
            found = condition(twin, kind)
            if found is not None and found.get("message"):
                raise TwinCliError(f"No pool serves {name}: {found['message']}")
        raise TwinCliError(
            f"No pool serves {name} yet. `kubectl twin status {name}` says why; is the operator running, and is there "
            "a MinerPool that the twin's spec.poolSelector matches?"
        )
    if wanted is None:
        return pools[0]
    if wanted not in pools:
        raise TwinCliError(f"Pool {wanted} does not serve {name}; these do: {', '.join(pools)}.")
    return wanted


def access_token(api: Api, *, namespace: str, pool: str) -> str:
    """Return a bearer token of the pool's miner.

    Raises:
        TwinCliError: no Secret, none in it, or no right to read it.
    """
    spec = api.get(pool_path(namespace, pool)).get("spec") or {}
    reference = (spec.get("miner") or {}).get("accessSecretRef") or {}
    name = reference.get("name") or names.access_secret_name(pool)
    make = f"`kubectl -n {namespace} create secret generic {name} --from-literal=$USER=$(openssl rand -hex 24)`"
    try:
        secret = api.find(core_path("secrets", namespace, name))
    except ApiError as error:
        if error.status == 403:
            raise TwinCliError(
                f"You may not read Secret {name} in namespace {namespace}, which holds pool {pool}'s access tokens."
                " Ask an administrator for the right to get it, or for a token to use over the pool's Service."
            ) from error
        raise
    if secret is None:
        raise TwinCliError(f"Pool {pool} has no access tokens: Secret {name} does not exist. Create it: {make}.")
    for _client, value in sorted((secret.get("data") or {}).items()):
        token = base64.b64decode(value).decode("utf-8", errors="replace").strip()
        if token:
            return token
    raise TwinCliError(f"Secret {name} in namespace {namespace} holds no token. Make it anew with one: {make}.")


def miner_pod(api: Api, *, namespace: str, pool: str) -> str:
    """Return the name of a ready miner pod.

    Raises:
        TwinCliError: there is none.
    """
    selector = f"{names.LABEL_POOL}={pool},{names.LABEL_COMPONENT}=miner"
    pods = api.items(core_path("pods", namespace), labels=selector)
    if (ready := ready_pod(pods)) is not None:
        return ready
    look = f"`kubectl -n {namespace} describe pods -l {selector}`"
    if pods:
        raise TwinCliError(f"None of pool {pool}'s {len(pods)} miner pods is ready: {look} says why.")
    raise TwinCliError(
        f"Pool {pool} has no miner pod: look at `kubectl -n {namespace} describe deployment {names.miner_name(pool)}`."
    )


def ready_pod(pods: Sequence[Json]) -> str | None:
    """Return the name of one that is ready and here to stay."""
    for pod in pods:
        if is_pod_ready(pod) and not pod["metadata"].get("deletionTimestamp"):
            return str(pod["metadata"]["name"])
    return None


def _converse(
    forward: Forward, question: Question, *, token: str, pool: str, doctor: str, emit: Callable[[str], None] | None
) -> Answer:
    said = converse(
        forward,
        Asked(
            body=body_of(
                question.twin,
                question.messages,
                max_tokens=question.max_tokens,
                temperature=question.temperature,
                stream=question.stream,
            ),
            token=token,
            # Each question is a conversation of its own: the same words again may meet another version.
            headers={"x-session-id": uuid.uuid4().hex},
            timeout_seconds=question.timeout_seconds,
            far_end=f"pool {pool}'s miner",
            silence=f"Nothing came from {question.twin} for {question.timeout_seconds:.0f} s. The engine may be "
            f"overloaded or wedged: `kubectl twin status {question.twin} -n {question.namespace}`.",
        ),
        emit=emit,
    )
    return Answer(
        text=said.text,
        doctor=doctor,
        pool=pool,
        adapter_digest=said.headers.get(names.ADAPTER_DIGEST_HEADER) or None,
        served_name=said.headers.get(names.SERVED_NAME_HEADER) or None,
        pod=said.headers.get(names.POD_HEADER) or None,
        first_token_seconds=said.first_token_seconds,
        seconds=said.seconds,
        tokens=said.tokens,
        finish_reason=said.finish_reason,
    )
