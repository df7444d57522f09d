"""`python -m neurons.validator.gateway --chain … --netuid …`: serve until SIGTERM, drain, exit 0."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

import uvloop

from neurons.garbage import set_aside
from neurons.ledger import LedgerError
from neurons.miner import logs
from neurons.miner.errors import StartError
from neurons.unsaid import on_loop_error
from neurons.validator.gateway import settings
from neurons.validator.gateway.metrics import Metrics
from neurons.validator.gateway.recording import Scrubber
from neurons.validator.gateway.service import GatewayService

log = logging.getLogger("neurons.validator.gateway")


async def _run(given: settings.Settings, scrub: Scrubber | None) -> None:
    service = GatewayService(given, metrics=Metrics(process=True), scrub=scrub)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stop)
    async with set_aside():
        await service.run()


def main(arguments: Sequence[str], *, scrub: Scrubber | None = None) -> int:
    """Run the process; returns its exit status. `scrub`: in place of `neurons.privacy`, to measure the rest."""
    given = settings.parse(arguments)
    logs.configure(given.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(given, scrub))
    except (StartError, LedgerError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what to do; a traceback would hide it
        return 2
    except OSError as error:
        log.error("can't serve: %s", error.strerror)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
