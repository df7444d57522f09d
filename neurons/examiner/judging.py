"""The judge that the twin's gate names: calibrated by what is kept or anew, and closed when the items are scored.

Whatever is wrong with it leaves items in words without a score, and says why: nothing of it is a zero for anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yarl import URL

from neurons.examiner.kept import KeptCalibrations
from neurons.outside import ForbiddenAddress, check_address
from neurons.privacy import Deidentifier, PrivacyError
from neurons.scoring.judge import FORBIDDEN, CalibrationError, Endpoint, EndpointError, EndpointSettings, Opinion, Task
from neurons.scoring.judge_seating import CALIBRATE_SECONDS, Seated, seat_judge, seats_for
from neurons.sources.claims import Finder

log = logging.getLogger(__name__)

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """Where the judge is, what it is asked for, and for how long."""

    endpoint: str
    models: tuple[str, ...]
    language: str
    seconds: float
    """For all questions about answers; and as many again, at the most, for each grader's calibration."""
    concurrency: int
    key_file: Path | None = None
    version: str | None = None
    """What answers under the models' names, where that is known."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> JudgeSettings | None:
        """Return what the arguments say; None where they name no judge."""
        if options.judge_endpoint is None or not options.judge_models:
            return None
        return cls(
            endpoint=options.judge_endpoint, models=tuple(options.judge_models), language=options.judge_language,
            seconds=options.judge_seconds, concurrency=options.judge_concurrency, key_file=options.judge_key_file,
            version=options.judge_version,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """Who grades what is in words: a judge, or nobody and why, as a clause."""

    judge: Opinion | None
    why: str = ""


@asynccontextmanager
async def opened(
    settings: JudgeSettings, *, kept: KeptCalibrations, load_finder: Callable[[], Finder] = Deidentifier.load
) -> AsyncIterator[Bench]:
    """Seat the judge, and close its connections in the end. `load_finder` finds what may identify a person."""
    endpoints: list[Endpoint] = []
    try:
        try:
            endpoints = _endpoints(settings)
            await _check_address(settings.endpoint)
            seated = await _seated(settings, endpoints, kept, load_finder)
            why = next(iter(seated.refused), "no grader of the judge may count")
            bench = Bench(None, why) if seated.panel is None else Bench(seated.panel)
        except (EndpointError, CalibrationError, PrivacyError) as error:
            bench = Bench(None, str(error).rstrip("."))
        if bench.judge is None:
            log.warning("nothing is graded by a judge: %s", bench.why)
        yield bench
    finally:
        for endpoint in endpoints:
            await endpoint.close()


async def _seated(
    settings: JudgeSettings, endpoints: list[Endpoint], kept: KeptCalibrations, load_finder: Callable[[], Finder]
) -> Seated:
    # First of all: where that can't be looked for, nothing is sent, and there is nothing to calibrate for.
    finder = await asyncio.to_thread(load_finder)
    seated = await seat_judge(
        seats_for(endpoints), asked=[(Task.RUBRIC, settings.language)], kept=kept.all(settings.version), finder=finder,
        seconds=min(CALIBRATE_SECONDS, settings.seconds),
    )  # fmt: skip
    kept.put(seated.found, settings.version)
    return seated


def _endpoints(settings: JudgeSettings) -> list[Endpoint]:
    """Return an endpoint for each model; they share what may be in flight. Raises EndpointError."""
    each = max(1, settings.concurrency // len(settings.models))
    return [
        Endpoint(
            EndpointSettings(base=settings.endpoint, model=model, key_file=settings.key_file, concurrency=each)
        )
        for model in settings.models
    ]  # fmt: skip


async def _check_address(base: str) -> None:
    """Refuse a name that stands for a link-local address: clouds hand their machines' keys out there.

    Raises EndpointError. A name that can't be resolved now, or leads elsewhere later, is looked at by whoever asks
    again; here it is told.
    """
    url = URL(base)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port or _PORTS[url.scheme], type=socket.SOCK_STREAM)
    except OSError:
        return
    for *_, address in found:
        try:
            check_address(str(address[0]), loopback=True)
        except ForbiddenAddress:
            raise EndpointError(FORBIDDEN) from None
