"""What the operator and people are shown of a round's results. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bettertherapy_api.round_progress import RoundStage
from bettertherapy_api.validator_round import TOP
from neurons.ledger.rounds import RoundRows
from neurons.validator.rounds.conclude import Outcome, Results
from neurons.validator.rounds.rewards import WHOLE
from neurons.validator.rounds.steps import MILLI

_PERCENT = MILLI // 100


def of_results(results: Results, rows: RoundRows) -> dict[str, Any]:
    """Return the fields of a finished round's progress, by their Python names."""
    queried = len({each.miner for each in results.outcomes if each.attendance.asked})
    measured = results.document["measures"]
    finished = rows.finished
    return {
        "stage": RoundStage.DONE,
        "completion_time": None if finished is None else moment(finished.at_ms),
        "challenge_digest": results.document["challengeDigest"],
        "items": len(rows.items),
        "miners": {"queried": queried, "scored": results.scored, "failed": queried - results.scored},
        "quorum": dict(results.quorum),
        "metrics": dict(results.document["metrics"]),
        "top": tuple(
            _line(each, results) for each in results.outcomes[:TOP] if each.moving is not None and each.uid >= 0
        ),
        "results_digest": results.digest,
        "measures": {
            "consensusPercent": percent(measured["consensus"]),
            "goldAccuracyPercent": percent(measured["goldAccuracy"]),
            "judgesAgreementPercent": percent(measured["judgesAgreement"]),
            "reachedPercent": percent(measured["reached"]),
            "tasksOnTimePercent": percent(measured["tasksOnTime"]),
        },
    }


def moment(at_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 has a moment, to the second."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def percent(value: int | None) -> int | None:
    """Return thousandths of a percent as whole percent."""
    return None if value is None else min(100, max(0, round(value / _PERCENT)))


def _line(outcome: Outcome, results: Results) -> dict[str, Any]:
    given = results.rewards.of.get(outcome.miner)
    return {
        "uid": outcome.uid,
        "hotkey": outcome.miner.hotkey,
        "scorePercent": _whole(outcome.moving) or 0,
        "correctnessPercent": _whole(outcome.parts.correctness),
        "speedPercent": _whole(outcome.parts.speed),
        "satisfactionPercent": _whole(outcome.parts.satisfaction),
        "participationPercent": _whole(outcome.parts.participation),
        "weightPercent": None if given is None else round(100 * given.weight / WHOLE),
        "answered": outcome.attendance.answered,
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else round(100 * value)
