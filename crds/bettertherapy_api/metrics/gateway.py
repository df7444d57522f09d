"""The gateway's series. Labels are bounded: twins (`bounds`), miners of the metagraph (256), closed sets of words.
Nothing of a patient is in any.
"""

from __future__ import annotations

from typing import Final

from bettertherapy_api.metrics.series import Kind, Process, Reader, Series

_MINER: Final = ("hotkey", "registered")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)


def _counter(name: str, text: str, *labels: str, read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_gateway_{name}_total", kind=Kind.COUNTER, of=Process.GATEWAY, help=text, labels=labels,
        read_by=read_by,
    )  # fmt: skip


def _gauge(name: str, text: str, *, unit: str = "", read_by: tuple[Reader, ...] = ()) -> Series:
    return Series(
        name=f"bettertherapy_gateway_{name}", kind=Kind.GAUGE, of=Process.GATEWAY, help=text, unit=unit,
        read_by=read_by,
    )  # fmt: skip


def _seconds(
    name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS, read_by: tuple[Reader, ...] = ()
) -> Series:
    return Series(
        name=f"bettertherapy_gateway_{name}_seconds", kind=Kind.HISTOGRAM, of=Process.GATEWAY, help=text, labels=labels,
        unit="seconds", buckets=buckets, read_by=read_by,
    )  # fmt: skip


REQUESTS: Final = _counter(
    "requests",
    "Questions that ended, by twin and HTTP status; a stream that ended by an error event counts as the status it would"
    ' have had (499: the client left). Requests for twins that nobody serves count under twin="".',
    "twin", "code", read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
REQUEST_SECONDS: Final = _seconds(
    "request", "Seconds from a question's headers to the last byte of its answer.", "twin",
    read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
ADDED_SECONDS: Final = _seconds(
    "added",
    "Seconds that the gateway took beside waiting for miners: before they were asked, and after the last answer that"
    " was waited for.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0), read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
MINER_ANSWERS: Final = _counter(
    "miner_answers",
    "What came of asking a miner: answered, or why its answer wasn't used (late, busy, forged, …).",
    *_MINER, "outcome", read_by=(Reader.ROUNDS, Reader.DASHBOARDS),
)  # fmt: skip
MINER_SECONDS: Final = _seconds(
    "miner", "Seconds that a miner took for an answer that was used in the comparison.", *_MINER,
    read_by=(Reader.ROUNDS, Reader.DASHBOARDS),
)  # fmt: skip
HEDGES: Final = _counter("hedges", "Miners asked in a slow one's place.")
ANSWERS_HELD_BACK: Final = _counter(
    "answers_held_back", "Answers that play an emergency down, and were given to nobody.", read_by=(Reader.DASHBOARDS,)
)
TASK_REQUESTS: Final = _counter(
    "task_requests",
    "What miners with fine-tune tasks asked: a dataset or to take a report, by the answer's status.",
    "what", "code", read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
EMERGENCIES: Final = _counter(
    "emergencies", "Questions whose answer began with an emergency notice, by its most dangerous kind.", "kind",
    read_by=(Reader.DASHBOARDS,),
)  # fmt: skip
RATINGS: Final = _counter(
    "ratings", "Patients' first ratings of an answer, by twin, version (served name) and rating (1 to 5).",
    "twin", "version", "rating", "process", read_by=(Reader.CANARY, Reader.PILOT, Reader.DASHBOARDS),
)  # fmt: skip
RECORDS: Final = _counter(
    "records",
    "Exchanges written to the ledger: kept, without_text (they could not be de-identified), lost (no room).",
    "outcome", read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
IN_FLIGHT: Final = _gauge("in_flight", "Questions in work now.", read_by=(Reader.DASHBOARDS,))
MINERS: Final = _gauge(
    "miners", "Miners of the metagraph that have an address.", read_by=(Reader.ALERTS, Reader.DASHBOARDS)
)
METAGRAPH_AGE_SECONDS: Final = _gauge(
    "metagraph_age_seconds", "Seconds since the metagraph in use was read; +Inf while none was.", unit="seconds",
    read_by=(Reader.ALERTS,),
)  # fmt: skip
TWINS: Final = _gauge("twins", "Twins that some miner announced lately.", read_by=(Reader.DASHBOARDS,))
LEDGER_WAITING: Final = _gauge(
    "ledger_waiting", "Records on this disk that are not in the ledger yet.",
    read_by=(Reader.ALERTS, Reader.DASHBOARDS),
)  # fmt: skip
LEDGER_WRITER_UP: Final = _gauge(
    "ledger_writer_up", "1 while the process that writes the ledger runs.", read_by=(Reader.ALERTS,)
)
LEDGER_WRITER_ENDS: Final = _gauge(
    "ledger_writer_ends", "How often it ended, hung or could not be started since this gateway began."
)
SERIES: Final = (
    REQUESTS, REQUEST_SECONDS, ADDED_SECONDS, MINER_ANSWERS, MINER_SECONDS, HEDGES, ANSWERS_HELD_BACK, TASK_REQUESTS,
    EMERGENCIES, RATINGS, RECORDS, IN_FLIGHT, MINERS, METAGRAPH_AGE_SECONDS, TWINS, LEDGER_WAITING, LEDGER_WRITER_UP,
    LEDGER_WRITER_ENDS,
)  # fmt: skip
