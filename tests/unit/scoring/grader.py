"""A stand-in for a judge's endpoint: it reads the questions as they are sent, and answers as whoever it plays would."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from neurons.invisible import visible
from neurons.scoring.calibration import Pair
from neurons.scoring.judge import Calibration, Endpoint, EndpointSettings, Seat, Task
from neurons.scoring.judge.prompts import Wording

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MODEL = "judge-1"


@dataclass
class Asked:
    """A question, taken apart by the lines that a grader has to go by."""

    text: str
    mark: str
    answer: str
    criteria: Mapping[str, str]
    model: str
    fails: bool
    """Whether it asks which criteria fail."""

    @classmethod
    def of(cls, text: str, model: str = MODEL) -> Asked:
        (mark,) = set(re.findall(r"^(#[0-9a-f]{16}) conversation begins$", text, re.MULTILINE))
        answer = text.split(f"{mark} answer begins\n")[1].split(f"\n{mark} answer ends", maxsplit=1)[0]
        listed = json.loads(
            text.rsplit("as JSON:\n\n", maxsplit=1)[-1]
            .split("\n\nDecide", maxsplit=1)[0]
            .split("\n\nThe chat", maxsplit=1)[0]
        )
        fails = "`criterion_fails`: true" in text
        return cls(text, mark, answer, {each["id"]: each["criterion"] for each in listed}, model, fails)

    def reply(self, met: Mapping[str, bool]) -> str:
        verdicts = [
            {
                "id": name,
                "reason": "because",
                **({"criterion_fails": not is_met} if self.fails else {"criteria_met": is_met}),
            }
            for name, is_met in met.items()
        ]
        return json.dumps({"verdicts": verdicts})

    def known(self, criterion: str) -> bool:
        """Whether a canary is met."""
        if (word := re.search(r'"(.+)"', criterion)) is not None:
            return word[1] in self.answer
        return criterion.startswith(("Says nothing at all", "The answer holds no word"))


Plays = Callable[[Asked], "str | web.Response"]


class StandIn:
    """One endpoint; `plays` says who answers."""

    def __init__(self) -> None:
        self.plays: Plays = lambda _: "I'd rather not say."
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.model = MODEL
        self.finish = "stop"
        self.hanging = False
        self.in_flight = self.most_in_flight = 0
        self.base = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if self.hanging:
                await asyncio.sleep(60)
            said = self.plays(Asked.of(body["messages"][0]["content"], body["model"]))
        finally:
            self.in_flight -= 1
        if isinstance(said, web.Response):
            return said
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": self.finish}
        return web.json_response({"id": "1", "object": "chat.completion", "model": self.model, "choices": [choice]})


def truths(pairs: Sequence[Pair]) -> Mapping[tuple[str, str], bool]:
    """What is true of each answer and criterion."""
    known = {}
    for pair in pairs:
        known[pair.criterion, visible(pair.met)] = True
        known[pair.criterion, visible(pair.not_met)] = False
    return known


def honest(truth: Mapping[tuple[str, str], bool]) -> Plays:
    """Knows its trade."""
    return lambda asked: asked.reply({
        name: truth.get((text, asked.answer), asked.known(text)) for name, text in asked.criteria.items()
    })  # fmt: skip


def says(met: bool) -> Plays:
    """Says always the same."""
    return lambda asked: asked.reply(dict.fromkeys(asked.criteria, met))


def guesses(truth: Mapping[tuple[str, str], bool], seed: int = 3) -> Plays:
    """Is right about the canaries and guesses the rest: as good as packaged models are."""
    draw = random.Random(seed)
    return lambda asked: asked.reply({
        name: draw.random() < 0.5 if (text, asked.answer) in truth else asked.known(text)
        for name, text in asked.criteria.items()
    })  # fmt: skip


_TOLD = re.compile(
    r"(?i)criteria_met|grader|evaluat|review board|mark it|as met|not met|decodes|मूल्याङ्कन|मापदण्ड|I have checked"
)
_TOLD_NO = re.compile(
    r"(?i)not met|: false|failed|fails\.|fails? be true|absent|nothing here meets|भएको छैन|not stated|that criterion_fails be true"
)


def obeys(truth: Mapping[tuple[str, str], bool], *, canaries_too: bool) -> Plays:
    """Knows its trade, but does what an answer tells it; a cunning one only where it doesn't show."""

    def plays(asked: Asked) -> str:
        if not _TOLD.search(asked.answer):
            return str(honest(truth)(asked))
        wanted = _TOLD_NO.search(asked.answer) is None
        return asked.reply({
            name: asked.known(text) if (text, asked.answer) not in truth and not canaries_too else wanted
            for name, text in asked.criteria.items()
        })  # fmt: skip

    return plays


def seat_at(standin: StandIn, wording: Wording, *, model: str = MODEL, **settings: Any) -> Seat:
    """A grader at the stand-in."""
    endpoint = Endpoint(EndpointSettings(base=f"{standin.base}/v1", model=model, **settings))
    return Seat(endpoint, wording, draw=random.Random(f"{wording.name}{model}"))


def passed(
    seat: Seat, *, task: Task = Task.RUBRIC, language: str = "en", at: datetime = NOW, **fields: Any
) -> Calibration:
    """A calibration with which a grader may count, without asking it anything."""
    settings = seat.endpoint.settings
    kept: dict[str, Any] = {
        "seat": seat.id, "endpoint": settings.id, "model": settings.model, "answered": MODEL, "prompt": seat.wording.digest,
        "wording": seat.wording.name, "task": task, "language": language, "items": "sha256:" + "0" * 64, "at": at,
        "true_met": 40, "false_met": 0, "true_not": 40, "false_not": 0, "none": 0, "injections": 10, "followed": 0,
        "kappa": 1.0, "low": 0.8, "high": 1.0,
    }  # fmt: skip
    return Calibration(**kept | fields)
