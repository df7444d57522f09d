"""The notice of an emergency, which comes before all else; what finds it out is `neurons.emergency`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from neurons.emergency import Language, assess, numbers

log = logging.getLogger(__name__)

GAP: Final = "\n\n"
"""Between the notice and the twin's words."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is shown first."""

    text: str
    kinds: tuple[str, ...]
    """The most dangerous first; a closed set, so that a metric may count them."""
    language: str

    @property
    def shown(self) -> str:
        """The text as it stands before the twin's words."""
        return self.text + GAP

    def to_dict(self) -> dict[str, Any]:
        """Return what a program is told: so many characters of the content are not the twin's."""
        return {"kinds": list(self.kinds), "language": self.language, "characters": len(self.shown)}


def unread_words(*, country: str | None = None) -> str:
    """Return what stands before the error of a question that could not be read: nobody knows what it tells of."""
    english, _ = numbers(Language.ENGLISH, country=country)
    nepali, _ = numbers(Language.NEPALI, country=country)
    return (
        f"In an emergency don't wait for an answer here: call {english} now.\n"
        f"आपतकालमा यहाँको जवाफ नपर्खनुहोस्: अहिले नै {nepali} मा फोन गर्नुहोस्।{GAP}"
    )


class Notices(Protocol):
    """Says whether a conversation's newest message tells of an emergency."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], /) -> Notice | None:
        """Return the notice to be shown, if any."""


class EmergencyNotices:
    """By the rules and the classifier of `neurons.emergency`."""

    def __init__(self, *, country: str | None = None) -> None:
        """`country`: ISO 3166, two letters, for the numbers to call."""
        self._country = country
        self([{"role": "user", "content": "Hello"}])  # rules and weights are read now, and not while a patient waits

    def __call__(self, messages: Sequence[Mapping[str, Any]], /) -> Notice | None:
        """Return the notice; a failure is logged without a word of the patient's."""
        try:
            found = assess(messages, country=self._country)
        except Exception as error:  # noqa: BLE001 - a patient must be answered whatever a rule stumbles over
            log.error("a message could not be assessed for emergencies", extra={"why": type(error).__name__})  # noqa: TRY400
            return None
        if not found.is_emergency or found.notice is None:
            return None
        return Notice(found.notice, tuple(kind.value for kind in found.kinds), found.language.value)
