"""The alerts, once: charts, docs and tests are made from here. Each has a runbook, docs/runbooks/<name>.md.

An alert speaks of what a person has to do something about. Nothing fires because a series is missing, but the two that
say so (`BetterTherapyNoLeader`, `BetterTherapyTargetDown`): a Prometheus that was away makes nobody get up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bettertherapy_api.metrics import agent, engine, gateway, miner, operator
from bettertherapy_api.metrics.series import Series

GROUP: Final = "bettertherapy"
RUNBOOKS: Final = "docs/runbooks"


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"
    """Patients aren't answered, or something is being lost: now."""
    WARNING = "warning"
    """In working hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One alerting rule."""

    name: str
    expr: str
    seconds: int
    """How long the expression must hold."""
    severity: Severity
    summary: str
    """One sentence, in Prometheus' template language."""

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": f"{self.seconds // 60}m",
            "labels": {"severity": str(self.severity)},
            "annotations": {"summary": self.summary, "runbook": f"{RUNBOOKS}/{self.name}.md"},
        }


def rules() -> dict[str, Any]:
    """Return all alerts as a rules file; a PrometheusRule's `spec` has the same form."""
    return {"groups": [{"name": GROUP, "rules": [alert.rule() for alert in ALERTS]}]}


def _share(series: Series, bad: str, by: str, *, above: float) -> str:
    """Return: more than that share of what a counter counted in five minutes is bad, and it counted something."""
    return (
        f"sum by ({by}) (rate({series.name}{{{bad}}}[5m])) / sum by ({by}) (rate({series.name}[5m])) > {above}"
        f" and sum by ({by}) (increase({series.name}[5m])) > 10"
    )


def _objects(kind: str, condition: str, status: str) -> str:
    """Return how many objects of a namespace have a condition; each replica of the operator counts all of them."""
    matched = f'{operator.CONDITIONS.name}{{kind="{kind}",condition="{condition}",status=~"{status}"}}'
    return f"sum by (namespace) (max by (namespace, status) ({matched}))"


def _more_than_an_hour_ago(count: str) -> str:
    matched = count.replace("})", "} offset 1h)")
    return f"{count} > ({matched} or {count} * 0)"


ALERTS: Final = (
    Alert(
        name="BetterTherapyNoLeader", seconds=120, severity=Severity.CRITICAL,
        expr=f"absent({operator.IS_LEADER.name}) or sum({operator.IS_LEADER.name}) < 1",
        summary="No operator leads: what is changed in DoctorTwins and MinerPools has no effect.",
    ),
    Alert(
        name="BetterTherapyTargetDown", seconds=600, severity=Severity.WARNING,
        expr=f'{engine.UP.name}{{component=~"engine|miner|gateway|twin-operator"}} == 0',
        summary="Prometheus can't read {{ $labels.component }} {{ $labels.namespace }}/{{ $labels.pod }}.",
    ),
    Alert(
        name="BetterTherapyReconcileErrors", seconds=900, severity=Severity.WARNING,
        expr=_share(operator.RECONCILES, 'result="error"', "kind", above=0.2),
        summary="{{ $value | humanizePercentage }} of the reconciliations of {{ $labels.kind }} fail.",
    ),
    Alert(
        name="BetterTherapyApiWritesRefused", seconds=900, severity=Severity.WARNING,
        expr=f"sum by (verb, kind) (rate({operator.API_WRITES.name}"
        f'{{status=~"0|4..|5..",status!~"404|409"}}[10m])) > 0.02',
        summary="The API server refuses the operator's {{ $labels.verb }} of {{ $labels.kind }}.",
    ),
    Alert(
        name="BetterTherapyQueueSlow", seconds=900, severity=Severity.WARNING,
        expr=f"histogram_quantile(0.99, sum by (le) (rate({operator.QUEUE_WAIT_SECONDS.bucket}[10m]))) > 5",
        summary="Changes wait {{ $value | humanizeDuration }} for a worker of the operator (99th percentile).",
    ),
    Alert(
        name="BetterTherapyTwinNotServing", seconds=600, severity=Severity.CRITICAL,
        expr=f"{_objects('DoctorTwin', 'Serving', 'False|Unknown')} > 0",
        summary="{{ $value }} twins of {{ $labels.namespace }} are not answered.",
    ),
    Alert(
        name="BetterTherapyTwinDegraded", seconds=0, severity=Severity.WARNING,
        expr=f"{_objects('DoctorTwin', 'Degraded', 'True')} > 0",
        summary="{{ $value }} twins of {{ $labels.namespace }} answer slower, or are rated lower, than is usual for "
        "them.",
    ),
    Alert(
        name="BetterTherapyFineTuneFailed", seconds=0, severity=Severity.WARNING,
        expr=_more_than_an_hour_ago(_objects("FineTuneRun", "Failed", "True")),
        summary="A fine-tune of {{ $labels.namespace }} failed within the last hour; the twin answers as before.",
    ),
    Alert(
        name="BetterTherapyRoundFailed", seconds=0, severity=Severity.WARNING,
        expr=_more_than_an_hour_ago(_objects("ValidatorRound", "Failed", "True")),
        summary="A round of {{ $labels.namespace }} failed within the last hour; weights stay as they were.",
    ),
    Alert(
        name="BetterTherapyDatasetsOld", seconds=600, severity=Severity.WARNING,
        expr=f"time() - max by (namespace, validator) ({operator.DATASETS_WRITTEN.name}) > 129600",
        summary="Conversations of {{ $labels.validator }}, and consent that was withdrawn, haven't reached the "
        "fine-tunes for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        name="BetterTherapyEngineDown", seconds=300, severity=Severity.CRITICAL,
        expr=f"{agent.ENGINE_UP.name} == 0",
        summary="The engine of {{ $labels.namespace }}/{{ $labels.pod }} doesn't answer, or makes no progress.",
    ),
    Alert(
        name="BetterTherapyEngineRestarts", seconds=0, severity=Severity.WARNING,
        expr=f"max_over_time({agent.ENGINE_PROCESSES.name}[30m]) - min_over_time({agent.ENGINE_PROCESSES.name}[30m])"
        " >= 3",
        summary="The engine of {{ $labels.namespace }}/{{ $labels.pod }} began {{ $value }} times in half an hour.",
    ),
    Alert(
        name="BetterTherapyReplicaSlow", seconds=300, severity=Severity.WARNING,
        expr=f"{_objects('MinerPool', 'Degraded', 'True')} > 0",
        summary="{{ $value }} pools of {{ $labels.namespace }} have an engine pod that is slower than the others.",
    ),
    Alert(
        name="BetterTherapyAdapterFailed", seconds=600, severity=Severity.WARNING,
        expr=f'{agent.ADAPTERS.name}{{state="Failed"}} > 0',
        summary="{{ $value }} adapters can't be used in {{ $labels.namespace }}/{{ $labels.pod }}.",
    ),
    Alert(
        name="BetterTherapyOddAnswers", seconds=0, severity=Severity.CRITICAL,
        expr=f"sum by (namespace, pod, kind) (increase({agent.ODD_ANSWERS.name}[15m])) > 5",
        summary="The engine of {{ $labels.namespace }}/{{ $labels.pod }} gives answers that are none.",
    ),
    Alert(
        name="BetterTherapyRequestsFail", seconds=300, severity=Severity.CRITICAL,
        expr=_share(miner.REQUESTS, 'code=~"5..|broken"', "namespace, pool", above=0.05),
        summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.namespace }}/{{ $labels.pool }} fail.",
    ),
    Alert(
        name="BetterTherapySlowAnswers", seconds=900, severity=Severity.WARNING,
        expr="histogram_quantile(0.95, sum by (namespace, pool, le) "
        f"(rate({miner.REQUEST_SECONDS.bucket}[10m]))) > 30",
        summary="Answers of {{ $labels.namespace }}/{{ $labels.pool }} take {{ $value | humanizeDuration }} "
        "(95th percentile).",
    ),
    Alert(
        name="BetterTherapyNoPodForRequests", seconds=300, severity=Severity.CRITICAL,
        expr=f"max by (namespace, pool) ({miner.PODS_READY.name}) == 0"
        f" and sum by (namespace, pool) ({miner.HELD.name}) > 0",
        summary="Requests to {{ $labels.namespace }}/{{ $labels.pool }} wait, and no engine pod is ready.",
    ),
    Alert(
        name="BetterTherapyTableUnreadable", seconds=0, severity=Severity.WARNING,
        expr=f"sum by (namespace, pool, table) (increase({miner.TABLE_ERRORS.name}[15m])) > 0",
        summary="Miners of {{ $labels.namespace }}/{{ $labels.pool }} can't read what they are told ({{ $labels.table "
        "}}); the last good entry stays.",
    ),
    Alert(
        name="BetterTherapyKvCacheFull", seconds=600, severity=Severity.WARNING,
        expr=f"max by (namespace, pod) ({engine.KV_CACHE.name}) > 0.95"
        f" and sum by (namespace, pod) ({engine.WAITING.name}) > 0",
        summary="The engine of {{ $labels.namespace }}/{{ $labels.pod }} has no room, and requests wait.",
    ),
    Alert(
        name="BetterTherapyMetagraphOld", seconds=300, severity=Severity.WARNING,
        expr=f"max by (namespace, pod) ({miner.METAGRAPH_AGE_SECONDS.name}) > 3600"
        f" or max by (namespace, pod) ({gateway.METAGRAPH_AGE_SECONDS.name}) > 3600",
        summary="{{ $labels.namespace }}/{{ $labels.pod }} hasn't read its subnet for an hour.",
    ),
    Alert(
        name="BetterTherapyGatewayFails", seconds=300, severity=Severity.CRITICAL,
        expr=_share(gateway.REQUESTS, 'code=~"5.."', "namespace", above=0.05),
        summary="{{ $value | humanizePercentage }} of the questions to the gateways of {{ $labels.namespace }} fail.",
    ),
    Alert(
        name="BetterTherapyNoMiners", seconds=600, severity=Severity.CRITICAL,
        expr=f"max by (namespace, validator) ({gateway.MINERS.name}) == 0",
        summary="The gateways of {{ $labels.namespace }}/{{ $labels.validator }} know no miner to ask.",
    ),
    Alert(
        name="BetterTherapyLedgerBehind", seconds=900, severity=Severity.WARNING,
        expr=f"max by (namespace, pod) ({gateway.LEDGER_WAITING.name}) > 1000",
        summary="{{ $value }} records of {{ $labels.namespace }}/{{ $labels.pod }} are not in the ledger yet.",
    ),
    Alert(
        name="BetterTherapyLedgerWriterDown", seconds=300, severity=Severity.WARNING,
        expr=f"{gateway.LEDGER_WRITER_UP.name} == 0",
        summary="The process that writes the ledger of {{ $labels.namespace }}/{{ $labels.pod }} doesn't run.",
    ),
    Alert(
        name="BetterTherapyRecordsLost", seconds=0, severity=Severity.CRITICAL,
        expr=f'sum by (namespace, pod) (increase({gateway.RECORDS.name}{{outcome="lost"}}[15m])) > 0',
        summary="Exchanges of {{ $labels.namespace }}/{{ $labels.pod }} were lost: no room for them.",
    ),
)  # fmt: skip
