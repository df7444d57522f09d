"""What can be wrong with a validator: pure checks, and for each condition the chain in which they count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from twin_operator.domain.objects import Validator
from twin_operator.domain.pod_troubles import (
    cannot_pull,
    cannot_start,
    claim_trouble,
    ending,
    last_words,
    while_mounting,
)
from twin_operator.domain.pool_facts import ContainerTrouble
from twin_operator.domain.reasons import Reason
from twin_operator.engine.conditions import Chain, Condition, Finding
from twin_operator.engine.resources import PERSISTENT_VOLUME_CLAIM
from twin_operator.kinds.validator.datasets import SECRET_FIELD, datasets_written
from twin_operator.kinds.validator.facts import ValidatorFacts
from twin_operator.kinds.validator.made_once import Missing
from twin_operator.kinds.validator.pages import pages_claim
from twin_operator.kinds.validator.rounds import RoundsSeen, weights_set
from twin_operator.kinds.validator.subnet import Sight, chain_reachable, counted

_COLDKEY: Final = "holds a coldkey"
"""As neurons.chain.wallet says it; a test holds the two together."""
_CANT_START: Final = 2
"""Exit status of a gateway that can't begin as it is set up."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the checks look at."""

    validator: Validator
    facts: ValidatorFacts
    told: int
    """Twins that the gateways are told of."""
    left_out: tuple[str, ...] = ()
    """Names of those for which there is no room."""
    unread: tuple[str, ...] = ()
    """Names of those that can't be read, and of which the gateways know nothing."""
    missing: tuple[Missing, ...] = ()
    """What its pods can't start without."""
    out_of_bounds: Finding | None = None
    """What the spec names and tenants may not use."""
    refused: Finding | None = None
    """Why children could not be applied."""
    twins_refused: Finding | None = None
    """Why that could not be which tells the gateways of the twins."""
    datasets_refused: Finding | None = None
    """Why the CronJob could not be applied that brings conversations to the store."""
    rounds_refused: Finding | None = None
    """Why the one could not be that makes rounds."""
    rounds: RoundsSeen = field(default_factory=RoundsSeen)
    ledger_job: str | None = None
    """The Job that makes the ledger's tables; None for an embedded ledger."""
    seen: Sight = field(default_factory=Sight)
    """What the gateways say of the subnet."""


def out_of_bounds(situation: Situation) -> Finding | None:
    """The spec names what tenants may not use: what runs goes on, and nothing of it is begun."""
    return situation.out_of_bounds


def children_refused(situation: Situation) -> Finding | None:
    """A child can't be made or changed: its name is taken, or the API server refuses it."""
    return situation.refused


def something_missing(situation: Situation) -> Finding | None:
    """A Secret that a person has to make is not there, or what the operator makes once is refused."""
    return _missing(each for each in situation.missing if each.certain and each.field != SECRET_FIELD)


def something_unknown(situation: Situation) -> Finding | None:
    """Not all gateways are up, and the API server doesn't say of something that they need whether it is there."""
    if situation.facts.ready >= situation.validator.spec.gateway.replicas:
        return None
    return _missing(each for each in situation.missing if not each.certain and each.field != SECRET_FIELD)


def coldkey_found(situation: Situation) -> Finding | None:
    """The gateway found a coldkey among what it was to sign with."""
    for pod in situation.facts.gateways:
        for crash in pod.crashes:
            words = last_words(crash.message)
            if crash.exit_code == _CANT_START and _COLDKEY in words:
                return Finding(Reason.COLDKEY_FOUND, f"gateway {pod.name} doesn't start: {words}")
    return None


def gateway_crashed(situation: Situation) -> Finding | None:
    """A gateway ends again and again."""
    for pod in situation.facts.gateways:
        for crash in pod.crashes:
            return Finding(
                Reason.GATEWAY_CRASHED,
                f"gateway {pod.name} ended with {_ending(crash)}; see `kubectl logs {pod.name} -c gateway --previous`",
            )
    return None


def image_pull_failed(situation: Situation) -> Finding | None:
    """The kubelet can't get the image."""
    for pod in situation.facts.gateways:
        for trouble in pod.pulls:
            return cannot_pull(pod, trouble, field="spec.gateway.image")
    return None


def configuration_failed(situation: Situation) -> Finding | None:
    """A container can't be started, mostly because a Secret lacks a key."""
    for pod in situation.facts.gateways:
        for trouble in pod.configs:
            return cannot_start(f"the gateway of pod {pod.name}", trouble)
    return None


def volume_missing(situation: Situation) -> Finding | None:
    """The claim of the ledger, or of the store that the pages write to, doesn't exist or is not bound."""
    claim = pages_claim(situation.validator.spec.gateway)
    for pod in situation.facts.gateways:
        found = claim_trouble(
            pod,
            absent=(
                f"; claim {claim} is that of spec.gateway.pages.store.uri: create it, or correct the uri"
                if claim is not None and f'"{claim}"' in (pod.unschedulable or "")
                else ""
            ),
            unbound="the ledger's claim needs a StorageClass (spec.ledger.storageClassName) or a matching volume; or "
            "set spec.ledger.uriSecretRef",
        )
        if found is not None:
            return found
    return None


def unschedulable(situation: Situation) -> Finding | None:
    """No node takes a pod."""
    for pod in situation.facts.gateways:
        if pod.unschedulable is not None:
            return Finding(
                Reason.UNSCHEDULABLE,
                f"no node takes pod {pod.name}: {pod.unschedulable}; lower spec.gateway.resources, correct "
                "spec.gateway.pod, or add a node",
            )
    return None


def pods_refused(situation: Situation) -> Finding | None:
    """The API server refuses to create pods."""
    refused = situation.facts.deployment.refused
    return Finding(Reason.PODS_REFUSED, f"pods can't be created: {refused}") if refused else None


def no_gateway(situation: Situation) -> Finding | None:
    """Nothing runs, as asked; a patient is not answered all the same."""
    if situation.validator.spec.gateway.replicas > 0:
        return None
    return Finding(Reason.NO_GATEWAY, "spec.gateway.replicas is 0, so nobody is answered: raise it to serve")


def chain_never_read(situation: Situation) -> Finding | None:
    """No gateway answers, since none can read the subnet and none ever could: waiting helps nothing."""
    seen = situation.seen.fresh
    if situation.facts.ready or not seen or any(said.view.reachable or said.view.block is not None for said in seen):
        return None
    return Finding(Reason.CHAIN_UNREACHABLE, chain_reachable(situation.validator, situation.seen).message)


def not_all_ready(situation: Situation) -> Finding | None:
    """Gateways are starting, or being replaced."""
    wanted, facts = situation.validator.spec.gateway.replicas, situation.facts
    if facts.ready < wanted:
        waiting = next((pod for pod in facts.gateways if not pod.ready), None)
        where = ""
        if waiting is not None:
            does = while_mounting(waiting) or ": it starts, or reads the metagraph and what the miners announce"
            where = f"; waiting for pod {waiting.name}{does}"
        return Finding(Reason.GATEWAYS_STARTING, f"{facts.ready} of {wanted} gateway pods are ready{where}")
    deployment = facts.deployment
    if not deployment.seen or deployment.updated < wanted:
        return Finding(Reason.ROLLING_OUT, f"{deployment.updated} of {wanted} gateway pods run the newest spec")
    return None


def no_twins(situation: Situation) -> Finding | None:
    """There is nobody to answer for."""
    if situation.told or situation.left_out or situation.twins_refused:
        return None
    return twin_unreadable(situation) or Finding(
        Reason.NO_TWINS,
        f"there is no DoctorTwin in namespace {situation.validator.namespace}, so the gateway answers for nobody: "
        "create those that it is to answer for",
    )


def twins_refused(situation: Situation) -> Finding | None:
    """What tells the gateways of the twins can't be written, or is somebody else's."""
    return situation.twins_refused


def twin_unreadable(situation: Situation) -> Finding | None:
    """A twin is there that can't be read, and of which the gateways know nothing."""
    if not situation.unread:
        return None
    return Finding(
        Reason.TWIN_UNREADABLE,
        f"DoctorTwin {_some(situation.unread)} can't be read, so the gateway answers for {situation.told} others "
        "alone: see its condition Ready",
    )


def too_many_twins(situation: Situation) -> Finding | None:
    """Not all twins fit into what the gateway is told."""
    if not situation.left_out:
        return None
    return Finding(
        Reason.TOO_MANY_TWINS,
        f"the gateway answers for {situation.told} twins; for {_some(situation.left_out)} there is no room in its "
        "ConfigMap: put them into another namespace, with a Validator of their own",
    )


COMING_UP: Final = Chain[Situation](
    "why gateways don't answer",
    out_of_bounds, children_refused, something_missing, coldkey_found, gateway_crashed, image_pull_failed,
    configuration_failed, volume_missing, unschedulable, pods_refused, no_gateway, something_unknown,
    chain_never_read, not_all_ready,
)  # fmt: skip
READINESS: Final = COMING_UP.including(no_twins)
TWINS: Final = Chain[Situation]("TwinsPublished", twins_refused, no_twins, twin_unreadable, too_many_twins)


def validator_conditions(situation: Situation) -> list[Condition]:
    """Return the validator's conditions."""
    return [
        _ready(situation), _gateway_ready(situation), _twins_published(situation),
        chain_reachable(situation.validator, situation.seen), _ledger(situation), *_datasets(situation),
        weights_set(situation.validator, situation.rounds, refused=situation.rounds_refused),
        *_hosts(situation.validator),
    ]  # fmt: skip


def _ready(situation: Situation) -> Condition:
    """A patient who asks is answered, by what the spec asks for."""
    found = READINESS.evaluate(situation)
    if found is not None:
        return found.condition("Ready", "False")
    said = f"{_answering(situation.facts.ready)} for {counted(situation.told, 'twin')}"
    return Finding(Reason.ALL_READY, said).condition("Ready", "True")


def _gateway_ready(situation: Situation) -> Condition:
    """Some gateway answers."""
    if situation.facts.ready:
        return Finding(Reason.GATEWAYS_ANSWER, _answering(situation.facts.ready)).condition("GatewayReady", "True")
    waiting = Finding(Reason.GATEWAYS_STARTING, "no gateway pod is ready")
    return (COMING_UP.evaluate(situation) or waiting).condition("GatewayReady", "False")


def _twins_published(situation: Situation) -> Condition:
    found = TWINS.evaluate(situation)
    if found is not None:
        return found.condition("TwinsPublished", "False")
    said = f"the gateway is told of {counted(situation.told, 'twin')}, and which weights may answer for each"
    return Finding(Reason.TWINS_PUBLISHED, said).condition("TwinsPublished", "True")


def ledger_trouble(situation: Situation) -> Finding | None:
    """A gateway says that what it records doesn't come into the ledger, whatever was there when it started."""
    for said in situation.seen.fresh:
        if said.view.ledger_trouble is not None:
            return Finding(
                Reason.LEDGER_UNREACHABLE,
                f"gateway {said.pod} answers, and can't write what is asked and answered: {said.view.ledger_trouble}",
            )
    return None


def _embedded_ledger(situation: Situation) -> Condition:
    """It is a file that only the gateway itself has."""
    trouble = ledger_trouble(situation)
    if trouble is not None:
        return trouble.condition("LedgerReachable", "False")
    if situation.facts.ready:
        said = "the ledger is SQLite on the gateway's volume: one gateway, and a gap while it is replaced"
        return Finding(Reason.EMBEDDED_LEDGER, said).condition("LedgerReachable", "True")
    claims = (each for each in situation.missing if each.certain and each.key.kind == PERSISTENT_VOLUME_CLAIM.kind)
    found = _missing(claims) or volume_missing(situation)
    if found is not None:
        return found.condition("LedgerReachable", "False")
    waits = Finding(Reason.GATEWAYS_STARTING, "the ledger is a file of the gateway's, and no gateway pod is ready")
    return (no_gateway(situation) or waits).condition("LedgerReachable", "Unknown")


def _ledger(situation: Situation) -> Condition:
    if situation.ledger_job is None:
        return _embedded_ledger(situation)
    found = _missing(each for each in situation.missing if each.certain and each.field == "spec.ledger.uriSecretRef")
    if found is not None:
        return found.condition("LedgerReachable", "False")
    reported = ledger_trouble(situation)
    if reported is not None:
        return reported.condition("LedgerReachable", "False")
    if situation.ledger_job in situation.facts.tables_made:
        said = "the database answered, and has this release's tables"
        return Finding(Reason.LEDGER_PREPARED, said).condition("LedgerReachable", "True")
    for pod in situation.facts.ledger_pods:
        for trouble in (*pod.crashes, *pod.configs, *pod.pulls):
            told = last_words(trouble.message) or trouble.reason
            why = Finding(Reason.LEDGER_UNREACHABLE, f"pod {pod.name} can't make the ledger's tables: {told}")
            return why.condition("LedgerReachable", "False")
    waits = Finding(Reason.PREPARING_LEDGER, f"Job {situation.ledger_job} looks at the database's tables")
    return (out_of_bounds(situation) or waits).condition("LedgerReachable", "Unknown")


def _datasets(situation: Situation) -> list[Condition]:
    return datasets_written(
        situation.validator, situation.facts.datasets, refused=situation.datasets_refused,
        missing=_missing(each for each in situation.missing if each.field == SECRET_FIELD and each.certain),
    )  # fmt: skip


def _hosts(validator: Validator) -> list[Condition]:
    if not validator.spec.gateway.hosts:
        return []
    missing = Finding(
        Reason.NOT_IMPLEMENTED,
        f"this release publishes no hosts: point an Ingress or an HTTPRoute with TLS for "
        f"{', '.join(validator.spec.gateway.hosts)} at Service {validator.name}-gateway",
    )
    return [missing.condition("HostsActive", "False")]


def _missing(missing: Iterable[Missing]) -> Finding | None:
    for each in missing:
        kind, name = each.key.kind, each.key.name
        if not each.certain:
            said = f"the API server doesn't say whether {kind} {name} is there: {each.why}"
            return Finding(Reason.CHILDREN_REFUSED, said)
        if each.why is not None:
            return Finding(Reason.CHILDREN_REFUSED, f"the API server refuses {kind} {name}: {each.why}")
        if kind != PERSISTENT_VOLUME_CLAIM.kind:
            return Finding(
                Reason.SECRET_NOT_FOUND,
                f"Secret {name}, which {each.field} names, is not there: create it in this namespace, or correct "
                f"{each.field}",
            )
    return None


def _answering(gateways: int) -> str:
    return f"{counted(gateways, 'gateway pod')} answer{'s' if gateways == 1 else ''}"


def _some(twins: Sequence[str]) -> str:
    return ", ".join(twins[:5]) + (f" and {len(twins) - 5} more" if len(twins) > 5 else "")


def _ending(crash: ContainerTrouble) -> str:
    return ending(crash, memory="spec.gateway.resources.limits.memory", words=last_words(crash.message))
