"""What a miner's version is worth as work: a verdict beside the gate's, at an error of its own.

The gate asks whether a version may answer patients. All versions of one dataset share its error, so that it is not the
luckiest of many that passes: whoever is examined later is judged more strictly. As a measure of who did the work that
would pay the first. So credit is decided from the same answers at one level for everybody, whoever was examined before:

- it learned what it was given, more than what it was not (`bettertherapy_api.gate.learning`);
- it is shown to be no worse than the version that it began from, by the gate's own comparison.

The anchor and the floors are left out: what many nights lost, or a parent that is below a floor, is no miner's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bettertherapy_api.gate.decision import Criteria, Scored, Ungraded, decide
from bettertherapy_api.gate.learning import FEWEST_LESSONS, Learning

CreditVerdict = Literal["Passed", "Failed", "Inconclusive"]

CREDIT_ERROR: Final = 0.05
"""One-sided, of the comparison with the parent, for each version by itself."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What a version is worth to who made it."""

    verdict: CreditVerdict
    message: str
    """Why, as sentences."""


def credit(
    scored: Sequence[Scored],
    learning: Learning | None,
    *,
    margin: int,
    min_samples: int,
    scorer_failure: str | None = None,
    tripped: Sequence[str] = (),
    ungraded: Sequence[Ungraded] = (),
) -> Credit:
    """Decide on one version by itself; the arguments are those of `decide`.

    - It was given answers enough to tell, and did not learn them: Failed.
    - It is surely worse than the parent, lost critical items or plays an emergency down: Failed.
    - It is shown to be no worse, and learned: Passed.
    - Else Inconclusive: nobody can tell that it learned these very answers, or that it is no worse.
    """
    if learning is not None and learning.can_be_told and not learning.is_shown:
        return Credit("Failed", f"It has not learned what it was given: {learning.told()}.")
    criteria = Criteria(min_score=0, margin=margin, min_samples=min_samples, error=CREDIT_ERROR)
    found = decide(scored, criteria, scorer_failure=scorer_failure, tripped=tripped, ungraded=ungraded)
    if found.verdict == "Reject":
        return Credit("Failed", found.message)
    if found.verdict == "Inconclusive":
        return Credit("Inconclusive", found.message)
    if learning is None or not learning.can_be_told:
        given = learning.lessons if learning is not None else 0
        few = f"It was given {given} answers to learn that could be measured, {FEWEST_LESSONS} tell whether it did"
        return Credit("Inconclusive", f"{few}, so it may be its parent once more. {found.message}")
    if not learning.is_of_its_lessons:
        return Credit(
            "Inconclusive",
            f"It is not shown to have learned what it was given, and not its doctor's manner alone: "
            f"{learning.told_beside()}. {found.message}",
        )
    return Credit("Passed", f"{found.message} It learned: {learning.told()}, and {learning.told_beside()}.")
