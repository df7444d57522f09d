"""What is observed of a validator, read out of its Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bettertherapy_api import names
from bettertherapy_api.report import GatewayReport, GatewayView
from twin_operator.domain.objects import Validator
from twin_operator.domain.pool_facts import DeploymentFacts, PodFacts
from twin_operator.engine.apply import controlled_by
from twin_operator.engine.resources import CRON_JOB, DEPLOYMENT, JOB, POD, Manifest
from twin_operator.engine.store import Entry
from twin_operator.kinds.resources import POD_REPORT
from twin_operator.kinds.validator.datasets import DatasetsFacts, datasets_facts
from twin_operator.kinds.validator.labels import DATASETS, GATEWAY, LEDGER, ROUNDS
from twin_operator.kinds.watched import Report


@dataclass(frozen=True, kw_only=True)
class ValidatorFacts:
    """All that is observed of one validator."""

    gateways: tuple[PodFacts, ...] = ()
    """Its gateway pods that are here to stay, by name."""
    views: Mapping[str, GatewayView] = field(default_factory=dict)
    """What they say of their subnet, by name; only of pods that exist under the UID that the report states."""
    deployment: DeploymentFacts = field(default_factory=DeploymentFacts)
    ledger_pods: tuple[PodFacts, ...] = ()
    """Pods that make the ledger's tables, and are here to stay."""
    tables_made: frozenset[str] = frozenset()
    """Names of the Jobs that have made the ledger's tables."""
    datasets: DatasetsFacts = field(default_factory=DatasetsFacts)
    """What became of the Jobs that bring conversations to the store."""
    making_rounds: DatasetsFacts = field(default_factory=DatasetsFacts)
    """What became of the Jobs that make ValidatorRounds."""

    @property
    def ready(self) -> int:
        """Gateway pods that answer."""
        return sum(pod.ready for pod in self.gateways)


def facts_of(validator: Validator, entries: Iterable[Entry]) -> ValidatorFacts:
    """Read the facts out of everything that carries the validator's label.

    Its name is in the label: what an earlier validator of that name owned tells nothing of this one.
    """
    gateways: list[PodFacts] = []
    ledger_pods: list[PodFacts] = []
    reports: dict[str, GatewayReport] = {}
    deployment = DeploymentFacts()
    made: set[str] = set()
    cron_jobs: dict[str, Manifest] = {}
    jobs: list[Manifest] = []
    job_pods: list[PodFacts] = []
    for entry in entries:
        kind, value = entry.key.kind, entry.value
        if kind == POD.kind and isinstance(value, PodFacts):
            if value.component == GATEWAY and not value.leaving:
                gateways.append(value)
            elif value.component == LEDGER and not value.leaving:
                ledger_pods.append(value)
            elif value.component in (DATASETS, ROUNDS):
                job_pods.append(value)  # also those that have ended: they say why
        elif kind == POD_REPORT.kind:
            if isinstance(value, Report) and value.gateway is not None:
                reports[entry.key.name] = value.gateway
        elif kind == JOB.kind and not controlled_by(entry.manifest, validator.uid):
            jobs.append(entry.manifest)  # of the CronJob, perhaps
        elif not controlled_by(entry.manifest, validator.uid):
            continue
        elif kind == DEPLOYMENT.kind and entry.key.name == names.gateway_name(validator.name):
            deployment = value
        elif kind == CRON_JOB.kind:
            cron_jobs[entry.key.name] = entry.manifest
        elif kind == JOB.kind and _complete(entry.manifest):
            made.add(entry.key.name)
    return ValidatorFacts(
        gateways=tuple(sorted(gateways, key=lambda pod: pod.name)), deployment=deployment,
        views={
            pod.name: said.gateway
            for pod in gateways
            if (said := reports.get(pod.name)) is not None and said.pod.uid == pod.uid
        },
        ledger_pods=tuple(sorted(ledger_pods, key=lambda pod: pod.name)), tables_made=frozenset(made),
        datasets=datasets_facts(cron_jobs.get(names.datasets_name(validator.name)), jobs, job_pods),
        making_rounds=datasets_facts(cron_jobs.get(names.rounds_name(validator.name)), jobs, job_pods),
    )  # fmt: skip


def _complete(job: Manifest) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each.get("type") == "Complete" and each.get("status") == "True" for each in conditions)
