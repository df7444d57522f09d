"""`python -m neurons.miner --pool POOL`: serve until SIGTERM, drain, exit 0."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from neurons.cluster import ClusterAccessError
from neurons.garbage import set_aside
from neurons.miner import logs, settings
from neurons.miner.errors import StartError
from neurons.miner.metrics import Metrics
from neurons.miner.service import MinerService
from neurons.unsaid import on_loop_error

log = logging.getLogger("neurons.miner")


async def _run(given: settings.Settings) -> None:
    try:
        service = MinerService(given, metrics=Metrics(process=True))
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_loop_error)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, service.stop)
        async with set_aside():
            await service.run()
    except StartError as error:
        await _last_word(given, error)
        raise


async def _last_word(given: settings.Settings, error: StartError) -> None:
    """Let the operator know that the wallet is why this miner ends."""
    if given.subnet is None:
        return
    from neurons.miner.registration_report import WalletRefused, report_refusal  # noqa: PLC0415 - it loads the SDK

    if isinstance(error, WalletRefused):
        await report_refusal(given, error)


def main() -> int:
    """Run the process; returns its exit status."""
    given = settings.parse(sys.argv[1:])
    logs.configure(given.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(given))
    except (ClusterAccessError, StartError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message says what to do; a traceback would hide it
        return 2
    except OSError as error:
        log.error("can't serve: %s", error)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
