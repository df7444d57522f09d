"""Whether the engine's chat template takes conversations at all: asked once for each engine process.

A template that takes none turns every patient away while all weights are verified, so the pod's report says it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from neurons.agent.engine import EngineAnswer, EngineClient, EngineError
from neurons.agent.measuring import Measuring, Unmeasurable
from neurons.agent.monitor import EngineMonitor
from neurons.conversation import Probe, Refused, Reply, TemplateProbe, may_be_the_templates

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0


class ChatTemplate:
    """Follows one engine; `run` never returns."""

    def __init__(
        self, engine: EngineClient, measuring: Measuring, monitor: EngineMonitor, *, changed: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._measuring = measuring
        self._monitor = monitor
        self._changed = changed
        self._epoch = -1
        self._refusal: str | None = None

    @property
    def settled(self) -> bool:
        """Whether this engine process was asked."""
        return self._epoch == self._monitor.epoch

    @property
    def refusal(self) -> str | None:
        """Why the template takes no conversation, in the engine's words; None while that isn't known."""
        return self._refusal if self.settled else None

    async def run(self) -> None:
        """Ask each engine process when it is up."""
        while True:
            await self._monitor.wait_up()
            if not self.settled:
                try:
                    await self._ask(self._monitor.epoch)
                except (EngineError, Unmeasurable) as error:
                    log.debug("the chat template can't be asked yet: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _ask(self, epoch: int) -> None:
        model, probe = self._measuring.base_name(), TemplateProbe()
        while (asked := probe.next()) is not None:
            probe.take(await self._reply(model, asked))
        self._epoch, self._refusal = epoch, probe.result.why if isinstance(probe.result, Refused) else None
        if self._refusal is not None:
            log.error("the chat template takes no conversation: %s", self._refusal[:500])
            self._changed()

    async def _reply(self, model: str, probe: Probe) -> Reply:
        try:
            return Reply(prompt_tokens=await self._engine.prompt_tokens(model, probe.messages))
        except EngineAnswer as error:
            if may_be_the_templates(error.status, error.param) and not error.is_not_found:
                return Reply(refusal=error.message)
            raise
