"""Objects for the operator's tests, as the API server would hand them out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from bettertherapy_api import names
from bettertherapy_api.report import (
    AdapterReport,
    AdapterState,
    EngineReport,
    FailureReason,
    PodRef,
    PodReport,
    Proof,
)
from twin_operator.domain.objects import Pool, Twin, pool_from, twin_from
from twin_operator.domain.pool_facts import PoolFacts, deployment_facts, facts_of, pod_facts
from twin_operator.kinds.resources import POD_REPORT
from twin_operator.kinds.watched import decode_report

NAMESPACE = "clinic"
BASE = "smollm2"
_versions = itertools.count(100)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def metadata(
    name: str, *, labels: dict[str, str] | None = None, uid: str | None = None, generation: int = 1
) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid or f"uid-{name}",
        "generation": generation,
        "resourceVersion": str(next(_versions)),
        "labels": labels or {},
    }


def pool_object(
    name: str = "p", *, labels: dict[str, str] | None = None, generation: int = 1, uid: str | None = None, **spec: Any
) -> dict[str, Any]:
    whole = {
        "baseModel": {"name": BASE, "uri": "pvc://models/smollm2"},
        "engine": {"device": "CPU", "maxLoras": 4},
        **spec,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "MinerPool",
        "metadata": metadata(
            name, labels=labels or {"tier": "demo"}, generation=generation, uid=uid or f"uid-{name}-{next(_versions)}"
        ),
        "spec": whole,
    }


def pool(name: str = "p", **spec: Any) -> Pool:
    made = pool_from(pool_object(name, **spec))
    assert isinstance(made, Pool), made
    return made


def twin_object(
    name: str = "dr-a", *, adapter: str | None = "a", rank: int = 8, status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "doctor": {"name": f"Dr. {name}", "licence": "L1"},
        "baseModel": {"name": BASE},
        "poolSelector": {"matchLabels": {"tier": "demo"}},
    }
    if adapter is not None:
        whole["adapter"] = {"uri": f"pvc://adapters/{name}/{adapter}", "digest": digest(adapter), "rank": rank}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DoctorTwin",
        "metadata": metadata(name, uid=f"uid-{name}-{next(_versions)}"),
        "spec": {**whole, **spec},
        "status": status or {},
    }


def twin(name: str = "dr-a", **fields: Any) -> Twin:
    made = twin_from(twin_object(name, **fields))
    assert isinstance(made, Twin), made
    return made


def adapter_report(
    name: str = "dr-a", letter: str = "a", state: AdapterState = AdapterState.VERIFIED,
    reason: FailureReason | None = None, *, message: str | None = None, retryable: bool | None = None,
    fingerprint: int | None = 50, proof: Proof | None = None, measured: tuple[int, ...] | None = None,
    attention_only: bool | None = None,
) -> dict[str, AdapterReport]:  # fmt: skip
    return {
        names.served_name(name, digest(letter)): AdapterReport(
            twin=name,
            digest=digest(letter),
            state=state,
            reason=reason,
            message=message,
            retryable=retryable,
            fingerprint_milli_nats=fingerprint if state is AdapterState.VERIFIED else None,
            proof=proof,
            measured_milli_nats=measured,
            attention_only=attention_only,
        )
    }


def report(
    pod: str = "p-engine-1",
    *adapters: dict[str, AdapterReport],
    ready: bool = True,
    live: bool = True,
    wedged: bool = False,
    draining: bool = False,
    message: str | None = None,
    template_refusal: str | None = None,
) -> PodReport:
    return PodReport(
        pod=PodRef(name=pod, uid=f"uid-{pod}"), ready=ready, draining=draining,
        engine=EngineReport(
            live=live, wedged=wedged, version="0.32.0", message=message, template_refusal=template_refusal
        ),
        adapters={name: held for each in adapters for name, held in each.items()}, cold_start_seconds=42,
    )  # fmt: skip


def pod_object(
    name: str = "p-engine-1",
    *,
    pool_name: str = "p",
    component: str = "engine",
    ready: bool | None = True,
    **status: Any,
) -> dict[str, Any]:
    conditions = [] if ready is None else [{"type": "Ready", "status": str(ready)}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name, labels={names.LABEL_POOL: pool_name, names.LABEL_COMPONENT: component}),
        "status": {"conditions": conditions, **status},
    }


def container_status(
    name: str = "engine",
    *,
    waiting: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
    terminated: dict[str, Any] | None = None,
    restarts: int = 0,
) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if waiting is not None:
        state["waiting"] = waiting
    if terminated is not None:
        state["terminated"] = terminated
    return {
        "name": name, "image": f"example/{name}:1", "state": state,
        "lastState": {"terminated": last} if last else {}, "restartCount": restarts,
    }  # fmt: skip


def report_objects(*reports: PodReport, pool_name: str = "p") -> list[dict[str, Any]]:
    """Return the reports as agents write them."""
    return [
        {
            "apiVersion": POD_REPORT.api_version, "kind": POD_REPORT.kind,
            "metadata": {
                **metadata(each.pod.name, labels={names.LABEL_POOL: pool_name}),
                "ownerReferences": [{"kind": "Pod", "name": each.pod.name, "uid": each.pod.uid}],
            },
            **each.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        for each in reports
    ]  # fmt: skip


def read_facts(things: Iterable[dict[str, Any]], *, pool: str) -> PoolFacts:
    """Read a pool's facts out of these objects, as the store decodes them."""
    every = list(things)
    reports = {
        thing["metadata"]["name"]: found
        for thing in every
        if thing["kind"] == POD_REPORT.kind and (found := decode_report(thing, None).report) is not None
    }
    return facts_of(
        pool,
        pods=[pod_facts(thing) for thing in every if thing["kind"] == "Pod"],
        deployments={
            thing["metadata"]["name"]: deployment_facts(thing) for thing in every if thing["kind"] == "Deployment"
        },
        reports=reports,
    )


def deployment_object(
    name: str = "p-engine", *, pool_name: str = "p", replicas: int = 1, ready: int = 1, refused: str | None = None
) -> dict[str, Any]:
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": refused}] if refused else []
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, labels={names.LABEL_POOL: pool_name}),
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
            "conditions": conditions,
        },
    }
