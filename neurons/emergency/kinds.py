"""What kinds of emergency there are, and what is said of a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What kind of emergency it is; the value is what a metric may count."""

    HEART = "heart"
    STROKE = "stroke"
    BREATHING = "breathing"
    ANAPHYLAXIS = "anaphylaxis"
    BLEEDING = "bleeding"
    UNCONSCIOUS = "unconscious"
    SEIZURE = "seizure"
    MENINGITIS = "meningitis"
    """Meningitis' signs, and a headache that comes like a thunderclap."""
    SUICIDE = "suicide"
    SELF_HARM = "selfHarm"
    POISONING = "poisoning"
    """Too much of a medicine or a drug, a poison, gas, alcohol."""
    BITE = "bite"
    """A snake's, or an animal's that may have rabies."""
    PREGNANCY = "pregnancy"
    CHILD = "child"
    """Signs that are dangerous in a baby or a small child."""
    ABUSE = "abuse"
    """Violence, assault, a threat to others."""
    INJURY = "injury"
    SEPSIS = "sepsis"
    DIABETES = "diabetes"
    ABDOMEN = "abdomen"
    EYE = "eye"
    """Sight that is lost suddenly."""
    ALTITUDE = "altitude"
    OTHER = "other"
    """An emergency of which nobody can say what kind it is: the classifier found it, and no kind stands out."""


class Language(StrEnum):
    """In which language and script a notice is written."""

    ENGLISH = "en"
    NEPALI = "ne"
    ROMANISED = "ne-Latn"
    """Nepali in Latin letters."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Whether a patient's newest message tells of an emergency. Nothing of the message is kept."""

    kinds: tuple[Kind, ...] = ()
    """The most dangerous first; empty when no emergency was found."""
    rules: tuple[str, ...] = ()
    """The ids of the rules that matched, in rules.yaml; `classifier` where the second look says so, too, or alone."""
    language: Language = Language.ENGLISH
    """Of the newest message."""
    notice: str | None = field(default=None, repr=False)
    """What to show before anything else, in that language; None when no emergency was found."""

    @property
    def is_emergency(self) -> bool:
        """Tell whether the notice must be shown."""
        return bool(self.kinds)
