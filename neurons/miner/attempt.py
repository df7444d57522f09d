"""One request on its way: where it was, what came of it, what its client has heard."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from neurons.conversation import DEFAULT, Manner
from neurons.miner.asked import EngineRequest
from neurons.miner.cache import Keeping
from neurons.miner.continuation import Again, GoOn
from neurons.miner.errors import RequestError
from neurons.miner.metrics import CODE_BROKEN_STREAM
from neurons.miner.outlet import Outlet
from neurons.miner.pod_answers import Refused, TryElsewhere
from neurons.miner.tables import Pod, TwinRoute, VersionRoute
from neurons.miner.transcript import Transcript
from neurons.miner.turns import Turn

MAX_BEGUN: Final = 3
"""Engines that may begin one request, whatever the reason why they didn't finish it."""


@dataclass(slots=True)
class Attempt:
    """What is known of a request while pods are asked."""

    asked: EngineRequest
    session: bytes
    outlet: Outlet
    headers: Mapping[str, str]
    """What the engine is sent beside the body."""
    started: float
    twin: TwinRoute
    turn: Turn
    """Its place at a pod, or its waiting for one."""
    in_line: bool = False
    """It is counted among those that wait for a place."""
    version: VersionRoute | None = None
    manner: Manner = DEFAULT
    """Matters only to what `wants_manner`, and is asked for before each such body is written."""
    taught: str | None = None
    """UID of the twin whose lessons were looked for."""
    fitted: tuple[TwinRoute, int, str | None] | None = None
    """For which twin's rules, which context, and what beside the conversation, its length was made to fit."""
    told: dict[str, str] = field(default_factory=dict)
    """Headers of the answer that tell how the prompt was made: counts, no words."""
    transcript: Transcript | None = None
    """What a stream has said that has begun: from now on the request can't change its version."""
    going_on: Again | GoOn | None = None
    """How a stream that broke goes on."""
    tried: set[Pod] = field(default_factory=set)
    """Pods whose engine may have begun it, and didn't finish."""
    passed_over: set[Pod] = field(default_factory=set)
    """Pods that didn't take it, since the last pause; they may later."""
    soonest: float = inf
    """In how many seconds the first of those wants to be asked again."""
    begun: int = 0
    """How many engines may have begun it."""
    refused: Refused | None = None
    """The last engine's own error."""
    retry_after: str | None = None
    broke: str = ""
    """Why a stream broke, for the client."""
    broken_code: str = CODE_BROKEN_STREAM
    """What is counted if the stream stays broken."""
    draws: int = 1
    """How many answers are drawn at once, of which the best is given."""
    undrawn: Pod | None = None
    """The pod that refused to draw several."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """The headers with which its stream began."""
    keep: Keeping | None = None
    """Where its answer is kept for the same question, if it may be."""
    repeated: bool = False
    """It was given an answer that was kept."""
    passed_code: str | None = None
    """What is counted for an error event that was passed on."""
    bases: set[str | None] = field(default_factory=set)
    """Digests of the base models of the pods whose words are in the answer."""

    @property
    def measured(self) -> str | None:
        """Digest of the base model that answered; None where a pod measured none, or two pods different ones."""
        return next(iter(self.bases)) if len(self.bases) == 1 else None

    def answered_by(self, pod: Pod) -> None:
        """Take down whose words the answer has from now on: none of a pod's of which nothing was forwarded."""
        if self.transcript is None:
            self.bases.clear()
        self.bases.add(pod.base)

    @property
    def avoid(self) -> Collection[Pod]:
        """Pods that are not asked now."""
        return self.tried | self.passed_over

    def note(self, pod: Pod, why: TryElsewhere) -> None:
        """Take down that a pod didn't answer."""
        if why.began and why.reason != "template":
            self.tried.add(pod)
        elif not why.began:
            self.passed_over.add(pod)
            self.soonest = min(self.soonest, _seconds(why.retry_after))
        self.begun += why.began
        if why.began:
            self.draws = 1  # what broke one engine isn't multiplied at the next
        self.refused = why.refused or self.refused
        self.retry_after = why.retry_after or self.retry_after
        self.broke = why.why or self.broke

    def waits_for(self, left: float) -> bool:
        """Tell whether waiting `left` seconds may bring more than the error that an engine gave."""
        return self.refused is None or self.transcript is not None or self.soonest <= left

    def look_again(self, pods: Collection[Pod]) -> None:
        """After a pause: pods that didn't take it are asked again; those that began it only where there is no other."""
        self.passed_over.clear()
        self.soonest = inf
        if self.tried.issuperset(pods):
            self.tried.clear()

    def incomplete(self, why: str) -> RequestError:
        """Return the error of a request that no engine finished."""
        message = f"{self.broke}; {why}" if self.broke and self.outlet.begun else why
        return RequestError(502, "engine_error", message, code="engine_broke_off", may_repeat=False)


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isascii() and retry_after.isdigit() else 0.0
