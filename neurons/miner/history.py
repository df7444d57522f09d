"""A conversation that is too long for the model, made to fit: the last rounds whole, of the first ones what counts.

A round is a message of the user's and what follows until the next. Only whole rounds are left out, so that no answer
loses the words that limit it, and no call of a tool its result. Of what is left out, messages and sentences of the
*user's* are kept word for word, those with facts about them first. The twin's own earlier answers aren't cut to pieces:
"you may take it" without the sentence after it could be the opposite of what was said. Only a question of its own is
kept, with the user's short reply: "yes" says nothing without it.

Pure and deterministic: the same conversation is cut at the same place, and a longer one at the same place too until it
has grown by a good part, so that an engine's prefix cache goes on serving.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from neurons.conversation import BETWEEN, SYSTEM_ROLES, Message, text_of

MESSAGE_TOKENS: Final = 16
"""A message's marks in any template have no more tokens than this."""
FIXED_TOKENS: Final = 96
"""What a template says by itself: a date, a default greeting of the system's."""
TOOLS_TOKENS: Final = 1024
"""What it says of how tools are called."""
DEFAULT_ANSWER_TOKENS: Final = 1024
"""Room for an answer of which no length was asked; a quarter of the context if that is less."""
REFILL: Final = 0.7
"""After a cut the conversation takes this part of the room, so that not every turn makes a new cut."""

_WHOLE_BYTES: Final = 400
"""A user's message up to this length, and a quarter of the room, is kept whole or not at all."""
_REPLY_BYTES: Final = 160
"""A user's message up to this length may mean nothing without the question before it."""
_WORDS_AROUND: Final = 16
"""Of a sentence that is too long as a whole, so many words stay before and after what may harm: its "not" too."""
_PIECE_WORDS: Final = 3 * _WORDS_AROUND
"""Of pieces that touch, so many words become one."""
_SENTENCE: Final = re.compile(r"(?<=[.!?\u0964])\s+|\n+")
_STRONG: Final = re.compile(
    r"\b(?:allerg\w*|pregnan\w*|breast.?feed\w*|diabet\w*|asthma\w*|epilep\w*|cancer|stroke|heart|kidney\w*|liver|"
    r"surger\w*|operation|transplant\w*|bleed\w*|blood|pressure|diagnos\w*|medic\w*|tablet\w*|pill\w*|insulin|dose\w*|"
    r"taking|mg|smok\w*|alcohol|weigh\w*)\b|(?:एलर्जी|गर्भ|औषधि|मधुमेह|रक्तचाप|दम|मुटु|मिर्गौला|कलेजो)",
    re.IGNORECASE,
)
"""What one says of oneself that an answer must not forget."""
_VITAL: Final = re.compile(
    r"\b(?:allerg\w*|anaphyla\w*|intoleran\w*|pregnan\w*|breast.?feed\w*|suicid\w*|overdos\w*|poison\w*|swallowed|"
    r"(?:kill|harm|hurt)(?:ing)? (?:myself|him|her|them)\w*|end (?:my|it|this) (?:life|all)|want to die|"
    r"chest pain|(?:can.?t|cannot|hard to) breathe?|faint\w*|seizure\w*|warfarin|heparin|\w+xaban|dabigatran|"
    r"blood.?thinn\w*|anticoagul\w*|clopidogrel|methotrexate|lithium|digoxin|insulin|prednisolon\w*|cyclosporin\w*|"
    r"tacrolimus|chemo\w*|h\.?i\.?v|hepatitis|ha?emophil\w*|g6pd|porphyri\w*|transplant\w*|dialysis|pacemaker|"
    r"epilep\w*|(?:kidney|renal|liver|heart) (?:failure|disease)|one kidney|cirrhosis|asthma\w*)\b|"
    r"(?:एलर्जी|गर्भ|स्तनपान|आत्महत्या|मर्न|विष|सास फेर्न|छाती|वारफारिन|इन्सुलिन|प्रत्यारोपण|डायलाइसिस)",
)
"""What turns a harmless answer into one that harms: kept before all else, whatever says more of medicine. In lower
case: so it is looked for, in a quarter of the time."""
_WEAK: Final = re.compile(
    r"\d|\b(?:take|took|since|never|not|no|can't|cannot|don't|my|child|baby|mother|father|son|daughter|pain|fever|"
    r"drink\w*)\b|[\u0966-\u096f]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shortened:
    """A conversation with its beginning left out."""

    turns: list[Message]
    kept: int
    """Messages that stand whole, the system's included."""
    summarised: int
    """Messages left out of which something is kept."""
    dropped: int
    """Messages of which nothing is."""

    def told(self) -> str:
        """Return the header's value: counts alone."""
        return f"kept={self.kept}, summarised={self.summarised}, dropped={self.dropped}"


@dataclass(frozen=True, slots=True)
class Rounds:
    """A conversation taken apart."""

    system: list[Message]
    rounds: list[list[Message]]
    """The last begins with the newest message of the user's; nothing of it is left out."""

    @classmethod
    def of(cls, turns: Sequence[Message]) -> Rounds:
        """Take a conversation apart."""
        system = [turn for turn in turns if turn["role"] in SYSTEM_ROLES]
        rounds: list[list[Message]] = []
        after_user = False
        for turn in turns:
            if turn["role"] in SYSTEM_ROLES:
                continue
            starts = turn["role"] == "user" and not after_user  # what a user sends in a row is one question
            if starts or not rounds:
                rounds.append([])
            rounds[-1].append(turn)
            after_user = turn["role"] == "user"
        if len(rounds) > 1 and rounds[0][0]["role"] != "user":
            rounds[:2] = [rounds[0] + rounds[1]]  # a greeting belongs to what it greets
        return cls(system, rounds)

    def shortened(self, cut: int, *, summary_bytes: int) -> Shortened:
        """Return the conversation without its first `cut` rounds."""
        left_out = [turn for each in self.rounds[:cut] for turn in each]
        if not left_out:
            kept = [turn for each in self.rounds for turn in each]
            return Shortened([*self.system, *kept], len(self.system) + len(kept), 0, 0)
        first, *others = [turn for each in self.rounds[cut:] for turn in each]
        sentences, summarised = _extract(left_out, summary_bytes)
        marker = _marker(len(left_out), sentences)
        # Before the patient's own next words, in the patient's own part: it is what they said, and no rule.
        content = first.get("content")
        if isinstance(content, list):
            joined: object = [{"type": "text", "text": marker}, *content]
        else:
            joined = marker + BETWEEN + (content or "")
        turns = [*self.system, {**first, "content": joined}, *others]
        return Shortened(turns, len(turns), summarised, len(left_out) - summarised)

    def cut_for(self, room: float, *, size: float) -> int:
        """Return how many rounds to leave out, so that the rest takes less than `room`; both in tokens.

        `size` is the whole conversation's. The rounds are gone through as they came: what was cut stays cut, and is
        cut further only when the room is full again.
        """
        weights = [sum(_weight(turn) for turn in each) for each in self.rounds]
        unit = size / max(1, sum(weights) + sum(_weight(turn) for turn in self.system))
        # A coarse unit, so that it is the same for a conversation and the same one a turn later.
        unit = max(1 / 16, round(unit * 16) / 16)
        fixed = unit * sum(_weight(turn) for turn in self.system)
        cut = stays = 0
        for end, weight in enumerate(weights, start=1):
            stays += weight
            if fixed + unit * stays > room:
                while cut < end - 1 and fixed + unit * stays > REFILL * room:
                    stays -= weights[cut]
                    cut += 1
        return cut


def bound(size: int, turns: int, *, tools: bool) -> int:
    """Return more tokens than a prompt of `size` bytes of JSON and so many messages can have.

    No token of a model's vocabulary stands for less than one byte, but for the marks.
    """
    return size + MESSAGE_TOKENS * turns + FIXED_TOKENS + (TOOLS_TOKENS if tools else 0)


def answer_room(asked: int | None, context: int) -> int:
    """Return how many tokens are left free for the answer."""
    return asked if asked is not None else min(DEFAULT_ANSWER_TOKENS, context // 4)


def has_images(turns: Sequence[Message]) -> bool:
    """Tell whether some part is no text: nobody but the engine knows how many tokens it has."""
    return any(
        isinstance(content := turn.get("content"), list) and any(part.get("type") != "text" for part in content)
        for turn in turns
    )


def _weight(turn: Message) -> int:
    return len(text_of(turn).encode()) + 3 * MESSAGE_TOKENS


def _marker(left_out: int, sentences: Sequence[str]) -> str:
    if not sentences:
        return f"[The first {left_out} messages of this conversation are left out.]"
    said = "\n".join(f"- {sentence}" for sentence in sentences)
    return (
        f"[The first {left_out} messages of this conversation are left out. Of what I said in them, word for word:\n"
        f"{said}\nWhat follows is whole.]"
    )


def _extract(turns: Sequence[Message], most_bytes: int) -> tuple[list[str], int]:
    """Return what the user said that counts, in its order, and of how many messages it is."""
    units: list[_Unit] = []
    for number, turn in enumerate(turns):
        if turn["role"] != "user":
            continue
        text = text_of(turn).strip()
        if (asked := _asked_before(turns, number, text)) is not None:
            parts = [f'Asked "{asked}", I said: {text}']
        elif len(text.encode()) <= min(_WHOLE_BYTES, most_bytes // 4):
            parts = [text]
        else:
            parts = [part for sentence in _SENTENCE.split(text) for part in _pieces(sentence, most_bytes // 4)]
        units += [(len(units) + at, number, " ".join(part.split())) for at, part in enumerate(parts)]
    ranked = [unit for _, unit in sorted((_rank(unit, said), unit) for unit, said in _first_said(units))]
    room, taken = most_bytes, []
    for unit in ranked:
        size = len(unit[2].encode()) + 3
        if unit[2] and size <= room:
            taken.append(unit)
            room -= size
    taken.sort()
    return [text for _, _, text in taken], len({number for _, number, _ in taken})


_Unit = tuple[int, int, str]
"""Its place, the number of the message that it is of, and its words."""


def _first_said(units: Sequence[_Unit]) -> Iterator[tuple[_Unit, int]]:
    """Yield each unit with a 0 if it is the first to say something that may harm, 1 if others said all of that before,
    2 if nothing in it may harm.
    """
    known: set[str] = set()
    for unit in units:
        vital = {match[0] for match in _VITAL.finditer(unit[2].lower())}
        yield unit, 2 if not vital else int(vital <= known)
        known |= vital


def _rank(unit: _Unit, said: int) -> tuple[int, int, int]:
    return said, -_says(unit[2]), unit[0]


def _asked_before(turns: Sequence[Message], number: int, text: str) -> str | None:
    """Return the question to which a short message is the reply, where it asks for what an answer must not forget."""
    if number == 0 or turns[number - 1]["role"] != "assistant" or len(text.encode()) > _REPLY_BYTES:
        return None
    questions = [part for part in _SENTENCE.split(text_of(turns[number - 1]).strip()) if part.endswith("?")]
    fitting = [part for part in questions if _VITAL.search(part.lower()) or _STRONG.search(part)]
    return " ".join(fitting[-1].split()) if fitting and len(fitting[-1].encode()) <= _REPLY_BYTES else None


def _pieces(sentence: str, most_bytes: int) -> list[str]:
    """Return a sentence, or, of one that is too long and says what may harm, the words around that."""
    if len(sentence.encode()) <= most_bytes:
        return [sentence]
    words = sentence.split()
    pieces: list[tuple[int, int]] = []
    for first, last in _vital(words):
        # From where three words hold all of it, as many before and after.
        start, end = max(0, last - 2 - _WORDS_AROUND), min(len(words), first + _WORDS_AROUND)
        if pieces and start <= pieces[-1][1]:
            if end - pieces[-1][0] <= _PIECE_WORDS:
                pieces[-1] = (pieces[-1][0], max(end, pieces[-1][1]))
                continue
            start = pieces[-1][1]  # pieces that touch stay pieces: as one, they would be too long for any room
        if start < end:
            pieces.append((start, end))
    return [f"… {' '.join(words[start:end])} …" for start, end in pieces] or [sentence]


def _vital(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the first and the last word of whatever may harm; looks at each word once."""
    text = " ".join(words).lower()
    at, seen = 0, 0
    for match in _VITAL.finditer(text):
        at += text.count(" ", seen, match.start())
        seen = match.start()
        yield at, at + match[0].count(" ")


def _says(sentence: str) -> int:
    """Return how much a sentence seems to say of its speaker's health."""
    return 3 * min(3, len(_STRONG.findall(sentence))) + min(3, len(_WEAK.findall(sentence)))
