"""The gate's verdict on a run's version: from what an examiner reports, by the twin's own criteria."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from bettertherapy_api.doctor_twin import Gate, GateMetric
from bettertherapy_api.examination import BASE, Outcomes
from bettertherapy_api.finetune_run import (
    ArtifactStatus,
    ClarityStatus,
    CreditStatus,
    DatasetStatus,
    EvalStatus,
    GraderStatus,
    JudgingStatus,
    ScoredBy,
)
from bettertherapy_api.gate import Criteria, Decision, Metric, credit, decide
from bettertherapy_api.gate.budget import Look
from bettertherapy_api.gate.metrics import LANGUAGE, LANGUAGES
from bettertherapy_api.judging import GRADERS, WHOLE, Judging, Way
from twin_operator.domain.objects import Run
from twin_operator.domain.versions import place_of

MESSAGE_LENGTH = 4000
_METRICS = 32


def refused_artifact(*, uri: str, digest: str, twin: str, store: str) -> str | None:
    """Return why what a trainer names is not taken for the run's version; None for one at its only place."""
    expected = place_of(store, twin, digest)
    if uri == expected:
        return None
    return (
        f"the trainer names {uri} as what it published, and a version of DoctorTwin {twin} with that digest is at "
        f"{expected} and nowhere else: it is not examined"
    )


def refused_outcomes(
    outcomes: Outcomes, run: Run, *, made: ArtifactStatus, dataset: DatasetStatus | None
) -> str | None:
    """Return why a report is not taken for this run's; None where it speaks of exactly what the run is and made."""
    anchor = None if run.spec.anchor is None else run.spec.anchor.digest or BASE
    said = outcomes.subject
    for what, named, expected in (
        ("run", said.run_uid, run.uid), ("twin", said.twin, run.spec.twin_ref.name),
        ("version", said.child, made.digest),
        ("parent", said.parent, run.spec.parent_digest), ("anchor", said.anchor, anchor),
        ("dataset", said.dataset, dataset.digest if dataset is not None else None),
    ):  # fmt: skip
        if named != expected:
            theirs, ours = named or "none", expected or "none"
            return f"the examiner's report speaks of the {what} {theirs}, and this run's is {ours}"
    return None


def judged(outcomes: Outcomes, gate: Gate, *, attempt: int, look: Look, begun: datetime, now: datetime) -> EvalStatus:
    """Return the verdict; `look` is of account where there is an anchor, and the run was started at `begun`.

    Nothing of it is the examiner's word but what each item came to, and how the graders did on known answers.
    """
    criteria = Criteria(
        min_score=gate.min_score_percent, margin=gate.margin_percent, min_samples=gate.min_samples,
        min_safety=gate.min_safety_percent, category_floors=dict(gate.category_floors or {}), attempt=attempt,
        look=look if outcomes.subject.anchor is not None else None,
    )  # fmt: skip
    decision = decide(
        outcomes.scored(), criteria, scorer_failure=_may_not_count(outcomes, gate, begun, now),
        tripped=outcomes.tripped, ungraded=outcomes.without_score(),
    )  # fmt: skip
    if outcomes.judging.is_told:
        decision = replace(decision, message=f"{decision.message} {outcomes.judging.told()}")
    if gate.languages and outcomes.rows:
        told = f"{decision.message} Safety was judged in {_named(gate.languages)} alone (gate.languages)."
        decision = replace(decision, message=told)
    return eval_status(decision, attempt=attempt, outcomes=outcomes)


def credited(outcomes: Outcomes, gate: Gate, *, begun: datetime, now: datetime) -> CreditStatus:
    """Return what a candidate is worth to its miner: by itself, so that it is the same whoever was examined before."""
    found = credit(
        outcomes.scored(), outcomes.learning.as_learning() if outcomes.learning is not None else None,
        margin=gate.margin_percent, min_samples=gate.min_samples,
        scorer_failure=_may_not_count(outcomes, gate, begun, now), tripped=outcomes.tripped,
        ungraded=outcomes.without_score(),
    )  # fmt: skip
    return CreditStatus(verdict=found.verdict, message=found.message[:MESSAGE_LENGTH])


def _may_not_count(outcomes: Outcomes, gate: Gate, begun: datetime, now: datetime) -> str | None:
    """Return why nothing may be concluded from what was found, as a sentence."""
    return outcomes.failure or _other_languages(outcomes, gate) or _judge_trouble(outcomes, gate, begun, now)


def _judge_trouble(outcomes: Outcomes, gate: Gate, begun: datetime, now: datetime) -> str | None:
    """Return why what was scored by a judge may not count, as a sentence."""
    judging, ref = outcomes.judging, gate.judge_ref
    graded = judging.ways.get(Way.JUDGE, 0)
    if judging.takes_judge and not graded:
        return f"None of the {judging.takes_judge} items that take a judge has a grade, so nothing is concluded."
    if not graded:
        return None
    counted = f"{graded} items were scored by a judge"
    if ref is None:
        return f"{counted}, and the twin's gate names none, so nothing is concluded. Start a new run."
    wanted = {ref.model} if ref.second_model is None else {ref.model, ref.second_model}
    if {each.model for each in judging.graders} != wanted or len(judging.graders) < GRADERS:
        found = _named(each.model for each in judging.graders) or "nobody"
        return (
            f"{counted} made of {len(judging.graders)} graders of {found}, and the twin's gate asks for "
            f"{_named(wanted)} and at least {GRADERS} graders, so nothing is concluded. Start a new run."
        )
    for grader in judging.graders:
        why = grader.refusal(begun=begun, now=now)
        if why is None and grader.language != ref.language:
            why = f"it is calibrated for {grader.language}, and the items are in {ref.language}"
        if why is not None:
            return f"{counted} that may not count: {grader.model} ({grader.wording}): {why}. So nothing is concluded."
    return None


def _other_languages(outcomes: Outcomes, gate: Gate) -> str | None:
    """Return that safety was examined in other languages than the twin's, as a sentence."""
    if not outcomes.rows:  # nothing was asked, and that is said
        return None
    found = {name.removeprefix(LANGUAGE) for name in outcomes.metrics if name.startswith(LANGUAGE)}
    wanted = set(gate.languages or LANGUAGES)
    if found == wanted:
        return None
    return (
        f"Safety was examined in {_named(found) or 'no language'}, and the twin's gate.languages asks for "
        f"{_named(wanted)}, so nothing is concluded. Start a new run."
    )


def _named(languages: Iterable[str]) -> str:
    return " and ".join(sorted(set(languages)))


def eval_status(decision: Decision, *, attempt: int, outcomes: Outcomes | None = None) -> EvalStatus:
    """Return the decision as it stands in a status, with how the items were scored."""
    return EvalStatus(
        verdict=decision.verdict, samples=decision.samples, message=decision.message[:MESSAGE_LENGTH],
        metrics=[_metric(each) for each in decision.metrics[:_METRICS]] or None, attempt=attempt,
        judging=_judging(outcomes.judging, len(outcomes.ungraded)) if outcomes and outcomes.judging.is_told else None,
    )  # fmt: skip


def _judging(found: Judging, ungraded: int) -> JudgingStatus:
    return JudgingStatus(
        scored_by=ScoredBy(**{way.value: found.ways.get(way, 0) for way in Way}), ungraded=ungraded,
        graders=[
            GraderStatus(
                model=each.model[:128], wording=each.wording, kappa_percent=round(100 * each.kappa),
                low_percent=each.low * 100 // WHOLE, known_answers=each.count,
            )
            for each in found.graders
        ] or None,
        criteria=found.agreed + found.disagreed + found.ungraded, agreed=found.agreed,
        clarity=[
            ClarityStatus(
                part=each.measure[:40], answers=each.answers, value_percent=round(100 * each.child / WHOLE),
                baseline_percent=round(100 * each.parent / WHOLE),
            )
            for each in found.clarity
        ] or None,
    )  # fmt: skip


def _metric(metric: Metric) -> GateMetric:
    return GateMetric(
        name=metric.name[:63], value_percent=round(metric.value), baseline_percent=round(metric.baseline),
        threshold_percent=None if metric.threshold is None else max(0, round(metric.threshold)),
        interval_percent=[round(metric.interval.low), round(metric.interval.high)], items=metric.items,
        clusters=metric.clusters, margin_percent=metric.margin, shown=metric.shown,
    )  # fmt: skip
