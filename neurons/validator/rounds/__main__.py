"""`python -m neurons.validator.rounds run|weights|recompute`: one process of a round; 0 done, 75 try again."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop

from bettertherapy_api.round_progress import TRY_AGAIN, WEIGHTS_KEY, WeightsProgress
from bettertherapy_api.run_progress import FailureReport, LastWord
from neurons.ledger import Ledger, LedgerDown, LedgerError
from neurons.miner import logs
from neurons.validator.rounds import settings
from neurons.validator.rounds.errors import RoundError
from neurons.validator.rounds.progress import Progress, Teller, last_word
from neurons.validator.rounds.service import (
    open_teller,
    read_order,
    recompute_round,
    run_round,
    set_weights_of,
)
from neurons.validator.rounds.settings import Settings

log = logging.getLogger("neurons.validator.rounds")
FAILED = 1


async def _run(given: Settings) -> int:
    async with AsyncExitStack() as stack:
        teller = await open_teller(given, stack)
        progress = Progress(teller, attempt=given.attempt)
        try:
            order = read_order(given.order)
            ledger = await stack.enter_async_context(await Ledger.open(given.ledger_url))
            match given.command:
                case "run":
                    results = await run_round(given, order, ledger, progress)
                    log.info("the round is done", extra={"digest": results.digest, "scored": results.scored})
                case "weights":
                    said = await set_weights_of(given, order, ledger, teller)
                    log.info("weights: %s", said.state, extra={"reason": said.reason})
                case _:
                    await recompute_round(given, order, ledger, teller)
        except RoundError as error:
            return await _failed(given, teller, progress, error)
        except LedgerDown as error:
            return await _failed(given, teller, progress, RoundError("LedgerUnreachable", str(error), retryable=True))
        except LedgerError as error:
            return await _failed(given, teller, progress, RoundError("LedgerFailed", str(error), retryable=False))
    return 0


async def _failed(given: Settings, teller: Teller, progress: Progress, error: RoundError) -> int:
    failure = FailureReport(failure_class=error.kind, retryable=error.retryable, message=str(error))
    log.error("%s", error)
    if given.command == "run":
        await progress.tell(failure=failure)
    elif given.command == "weights":
        said = WeightsProgress(
            attempt=given.attempt, state="Waiting", reason=error.kind, message=str(error), failure=failure
        )
        await teller.tell(WEIGHTS_KEY, said)
    sys.stdout.write(last_word(LastWord(failure=failure)) + "\n")
    sys.stdout.flush()
    return TRY_AGAIN if error.retryable else FAILED


def main(arguments: Sequence[str]) -> int:
    """Run one process; returns its exit status."""
    given = settings.parse(arguments)
    logs.configure("INFO")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(given))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
