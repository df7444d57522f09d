"""What the engine beside this agent was started for, and which adapters need more than that.

vLLM loads an adapter that changes modules which it doesn't wrap, answers 200, and serves it without them. So they are
looked at before it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bettertherapy_api.lora_targets import beyond_attention
from bettertherapy_api.report import FailureReason
from neurons.agent.failure import Failure
from neurons.store.checks import WEIGHTS_FILE
from neurons.store.lora_tensors import module_of
from neurons.store.safetensors import NotSafetensors, read_header

OF_ANOTHER_START: Final = frozenset({FailureReason.RANK_TOO_HIGH, FailureReason.MODULES_NOT_WRAPPED})
"""What only an engine that is started otherwise can take, in another pod."""
_NAMED: Final = 4


@dataclass(frozen=True, kw_only=True)
class Started:
    """What an engine was started for, where that is less than the pool may hold."""

    attention_only: bool = False
    """It wraps attention's projections alone."""
    max_rank: int | None = None
    """Highest rank that it takes, until the operator restarts it for a higher one; None: the pool's own limit."""
    follows: bool = False
    """The operator restarts it for adapters that change more."""

    def refuse(self, *, rank: int, beyond: Sequence[str]) -> None:
        """Raise Failure for an adapter of this rank that changes these modules beyond attention's."""
        if self.max_rank is not None and rank > self.max_rank:
            raise Failure(
                FailureReason.RANK_TOO_HIGH,
                f"the adapter has rank {rank}, and this pod's engine was started for {self.max_rank} at most. With "
                "engine.maxLoraRank Auto it is restarted for it: the MinerPool's condition EnginesTuned says when.",
                retryable=True,
            )
        if not self.attention_only or not beyond:
            return
        more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
        what = (
            "With engine.loraTargets Auto it is restarted for it: the MinerPool's condition EnginesTuned says when."
            if self.follows
            else "Train it on attention alone, as fine-tunes of this pool without a parent are, or set the MinerPool's "
            "engine.loraTargets to AllLinear, which makes all its twins slower."
        )
        raise Failure(
            FailureReason.MODULES_NOT_WRAPPED,
            f"the adapter changes {', '.join(beyond[:_NAMED])}{more}, and this pod's engine was started for "
            f"attention's projections alone (q, k, v, o): it would serve the adapter without them. {what}",
            retryable=self.follows,
        )


def changed_beyond_attention(folder: Path) -> list[str] | None:
    """Return the modules other than attention's that an adapter changes; None where its weights aren't here. Blocks."""
    try:
        header = read_header(folder / WEIGHTS_FILE)
    except (OSError, NotSafetensors):
        return None
    modules = [module_of(tensor.name) for tensor in header.tensors]
    return beyond_attention(module for module in modules if module is not None)
