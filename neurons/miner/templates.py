"""What the pool's chat template takes: asked once, when the first conversation comes for which it matters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from neurons.conversation import DEFAULT, Manner, Probe, Refused, Reply, TemplateProbe
from neurons.miner.errors import RequestError
from neurons.miner.metrics import Metrics

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 30.0
"""A template that refuses all, or one that suddenly refuses, is asked again no sooner than this: pods are replaced."""

Ask = Callable[[Probe], Awaitable[Reply | None]]
"""Asks an engine; None when it can't be told now."""


class Templates:
    """One pool's template; all its engines serve one base model, so they have one template."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._result: Manner | Refused | None = None
        self._asked = 0.0
        self._asking = asyncio.Lock()

    @property
    def manner(self) -> Manner | None:
        """The manner, where it is known."""
        return self._result if isinstance(self._result, Manner) else None

    async def settle(self, ask: Ask) -> Manner:
        """Return the manner, asking for it if need be; raises RequestError when the template takes nothing."""
        async with self._asking:
            if isinstance(self._result, Refused) and time.monotonic() - self._asked > ASK_AGAIN_SECONDS:
                self._result = None
            if self._result is None:
                self._result = await self._probe(ask)
        if isinstance(self._result, Refused):
            self._metrics.template_refusals.inc()
            raise RequestError(
                502,
                "engine_error",
                f"the chat template of this pool's base model takes no conversation: {self._result.why[:500]} "
                "(give the engine one: spec.engine.args --chat-template)",
                code="chat_template_refuses",
                may_repeat=False,
            )
        return self._result or DEFAULT

    def doubt(self) -> bool:
        """Forget the manner because an engine refused a conversation; tell whether it shall be asked for again."""
        if self._result is None or time.monotonic() - self._asked < ASK_AGAIN_SECONDS:
            return False
        self._result = None
        return True

    async def _probe(self, ask: Ask) -> Manner | Refused | None:
        probe = TemplateProbe()
        while (asked := probe.next()) is not None:
            reply = await ask(asked)
            if reply is None:
                return None
            probe.take(reply)
        self._asked = time.monotonic()
        if isinstance(probe.result, Refused):
            log.error("the chat template takes no conversation", extra={"reason": probe.result.why[:500]})
        elif probe.result is not None:
            log.info(
                "chat template",
                extra={
                    "system": probe.result.system.value,
                    "alternate": probe.result.alternate,
                    "user_first": probe.result.user_first,
                },
            )
        return probe.result
