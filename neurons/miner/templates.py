"""What the engines' chat template takes: each pod is asked when the first conversation comes for which it matters.

Pods are replaced by ones with another base model or template while the miner stays, so what one pod said holds for
that pod. Until it has said so, nothing that depends on it is sent there: a doctor's rules must not vanish in silence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

import orjson

from neurons.conversation import Manner, Probe, Refused, Reply, TemplateProbe
from neurons.miner import pod_answers
from neurons.miner.errors import JSON_HEADERS, RETRY_AFTER_SECONDS, RequestError, unavailable, unknown_route
from neurons.miner.metrics import Metrics
from neurons.miner.pod_answers import TryElsewhere
from neurons.miner.tables import Pod, VersionRoute
from neurons.miner.upstream import AnswerTooLargeError, Upstream

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 30.0
"""A template that refuses all, or one that suddenly refuses, is asked again no sooner than this."""
PROBE_SECONDS: Final = 30.0
"""Longest wait for one answer: an engine that is loaded has others to answer first."""


@dataclass(slots=True)
class _Asked:
    """What is known of one pod's template."""

    result: Manner | Refused | None = None
    at: float = 0.0
    asking: asyncio.Task[Manner | Refused] | None = None


class Templates:
    """The templates of one pool's engines, by pod."""

    def __init__(self, metrics: Metrics, upstream: Upstream) -> None:
        self._metrics, self._upstream = metrics, upstream
        self._asked: WeakKeyDictionary[Pod, _Asked] = WeakKeyDictionary()

    async def settle(self, pod: Pod, version: VersionRoute) -> Manner:
        """Return what the pod's template takes, asking for it if need be.

        Raises RequestError when it takes nothing, TryElsewhere when the pod doesn't say.
        """
        known = self._asked.get(pod)
        if known is None:
            known = self._asked[pod] = _Asked()
        if isinstance(known.result, Refused) and time.monotonic() - known.at > ASK_AGAIN_SECONDS:
            known.result = None
        result = known.result or await self._ask(known, pod, version)
        if isinstance(result, Manner):
            return result
        self._metrics.template_refusals.inc()
        raise RequestError(
            502,
            "engine_error",
            f"the chat template of this pool's base model takes no conversation: {result.why[:500]} "
            "(give the engine one: spec.engine.args --chat-template)",
            code="chat_template_refuses",
            may_repeat=False,
        )

    def doubt(self, pod: Pod) -> bool:
        """Forget a pod's manner because it refused a conversation; tell whether it shall be asked for again."""
        known = self._asked.get(pod)
        if known is None or known.result is None or time.monotonic() - known.at < ASK_AGAIN_SECONDS:
            return False
        known.result = None
        return True

    async def _ask(self, known: _Asked, pod: Pod, version: VersionRoute) -> Manner | Refused:
        """Ask once for all who wait, and go on though the first of them leaves."""
        if known.asking is None:
            known.asking = asyncio.create_task(self._probe(known, pod, version), name=f"template of {pod.name}")
            known.asking.add_done_callback(_retrieve)
        return await asyncio.shield(known.asking)

    async def _probe(self, known: _Asked, pod: Pod, version: VersionRoute) -> Manner | Refused:
        probe = TemplateProbe()
        try:
            while (question := probe.next()) is not None:
                probe.take(await self._reply(pod, version, question))
        finally:
            known.asking = None
        result = probe.result
        if result is None:
            raise RuntimeError("a probe without a result")
        known.result, known.at = result, time.monotonic()
        if isinstance(result, Refused):
            log.error("the chat template takes no conversation", extra={"pod": pod.name, "reason": result.why[:500]})
        else:
            extra = {
                "pod": pod.name, "system": result.system.value,
                "user_first": result.user_first,
            }  # fmt: skip
            log.info("chat template", extra=extra)
        return result

    async def _reply(self, pod: Pod, version: VersionRoute, question: Probe) -> Reply:
        """Ask one question; raises TryElsewhere unless the answer says what the template does."""
        document = {
            "model": version.served_name, "messages": list(question.messages), "max_tokens": 1, "temperature": 0
        }  # fmt: skip
        reply = None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                with pod_answers.pod_errors(pod):
                    reply = await self._upstream.post(pod.url, orjson.dumps(document), JSON_HEADERS)
                    answer = await reply.whole()
        except TimeoutError:
            raise _unknown(pod, f"pod {pod.name} didn't say within {PROBE_SECONDS:.0f} s") from None
        except AnswerTooLargeError:
            raise _unknown(pod, f"pod {pod.name} says too much") from None
        finally:
            if reply is not None:
                reply.close()
        pod_answers.check_answer(reply, pod, answer, pod_answers.headers_of(version, pod, reply))
        if pod_answers.is_about_the_template(reply, answer):
            return Reply(refusal=pod_answers.message_of(answer))
        if reply.status == 404:
            raise unknown_route(pod.url.path)
        if reply.status == 200 and (tokens := _prompt_tokens(answer)) is not None:
            return Reply(prompt_tokens=tokens)
        what = "no count of the prompt's tokens" if reply.status == 200 else f"status {reply.status}"
        raise _unknown(pod, f"pod {pod.name} answered a short conversation with {what}")


def _prompt_tokens(answer: bytes) -> int | None:
    """Return how much the model read; without that count nobody knows whether it read the rules."""
    document: Any = pod_answers.document_of(answer)
    usage = document.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) and document.get("choices") else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None


def _unknown(pod: Pod, why: str) -> TryElsewhere:
    log.warning("the chat template isn't known", extra={"pod": pod.name, "reason": why})
    error = unavailable(
        f"it isn't known what the engines' chat template takes, without which the twin's rules could get lost: {why}",
        retry_after=RETRY_AFTER_SECONDS,
        code="chat_template_unknown",
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **JSON_HEADERS}
    return TryElsewhere("template_unknown", refused=pod_answers.Refused(error.status, error.to_bytes(), headers))


def _retrieve(task: asyncio.Task[Manner | Refused]) -> None:
    """Look at the outcome, so that asyncio doesn't log one for which nobody waits any more."""
    if not task.cancelled():
        task.exception()
