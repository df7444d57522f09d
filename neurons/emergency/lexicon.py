"""The reviewed list (rules.yaml) made ready to be looked up: words, phrases, concepts, rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field

from neurons.emergency.kinds import Kind
from neurons.emergency.words import INABLE, NEPALI, NOT_DONE, Word, skeletons, stem

_JOINED: Final = 8
"""A phrase of at least so many letters is also known when its words are written as one."""


_NEPALI_TYPO: Final = 8
"""Characters of a key from which a slip of the pen is looked for: short Nepali words differ by one letter as it is."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phrases(_Strict):
    """What is said, in each language. `word*` is any word that begins so, `#name` a number (see `_NUMBERS`)."""

    en: tuple[str, ...] = ()
    ne: tuple[str, ...] = ()
    """Nepali, in Devanagari or Latin letters: either finds both."""


class Rule(_Strict):
    """One line of the list: what must be said for an emergency of this kind."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(?:-[a-z0-9]+)*$")]
    kind: Kind
    why: Annotated[str, Field(min_length=3)]
    """The source or the reason, for whoever reviews the list."""
    say: Phrases = Phrases()
    """One of these is enough."""
    when: tuple[str, ...] = ()
    """Or concepts that are told together: `chest + pain`."""
    unless: tuple[str, ...] = ()
    """Concepts that make it something else when they are told in the same sentence."""
    scope: Literal["sentence", "talk"] = "sentence"
    """How near the concepts must be: in one sentence, or anywhere in what the patient said lately."""
    firm: bool = False
    """A negation takes nothing away: "there is no reason to live" says the same as its phrase."""
    certain: bool = False
    """The classifier takes nothing away either: across authors it was never right to, or what it took was too much."""
    always: bool = False
    """Also when it is asked or supposed ("how many pills …"): the question itself is the sign."""


class _Document(_Strict):
    concepts: Mapping[str, Phrases]
    rules: tuple[Rule, ...]


@dataclass(slots=True)
class Node:
    """What may follow in a phrase, and the concepts that end here."""

    next: dict[str, Node] = field(default_factory=dict)
    concepts: set[str] = field(default_factory=set)


class Known(NamedTuple):
    """What a word may be."""

    words: frozenset[str] = frozenset()
    """Of the list."""
    begins: tuple[tuple[Node, bool], ...] = ()
    """Where the phrases go on of which they are the first word, and whether that leaves open how it ends."""
    is_filler: bool = False
    """Whether it is without weight, and may stand in the middle of a phrase."""


_NOTHING: Final = Known()
_DENYING_ENDS: Final = ("ain", "en", "ain*", "en*")
"""How the list's words end that say what isn't done: "saas ferdain*", "hos ma aayen*"."""
_DENYING_BEGINNING: Final = f"{NEPALI}na"
"""And begin: "kahilyai nabha*"."""


def is_open(word: str) -> bool:
    """Tell whether a word of the list is a beginning, and none that denies."""
    return word.endswith("*") and not (word.endswith(_DENYING_ENDS) or word.startswith(_DENYING_BEGINNING))


@dataclass(frozen=True, slots=True)
class Combination:
    """Concepts of which all must be told."""

    rule: Rule
    concepts: tuple[str, ...]


_NUMBERS: Final = (
    ("#fever", lambda value: 38 <= value < 43 or 100.4 <= value < 109),
    ("#high-fever", lambda value: 39.9 <= value < 43 or 103.9 <= value < 109),
    ("#many", lambda value: 8 <= value <= 500),
    ("#sugar", lambda value: 20 <= value <= 60 or 300 <= value < 1500),
    ("#low-sugar", lambda value: 0 < value <= 3 or 10 < value <= 54),
    ("#fast", lambda value: 150 <= value <= 300),
    ("#high", lambda value: 2800 <= value <= 8849),
    ("#weeks", lambda value: 4 <= value <= 42),
    ("#number", lambda value: True),
)
_SPELLED: Final = frozenset(
    ["eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
     "nineteen", "twenty", "thirty", "forty", "fourty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred",
     "hundreds", "dozen", "dozens", f"{NEPALI}calis", f"{NEPALI}pacas"]
)  # fmt: skip
"""Numbers in words that are `#many`. Not Nepali's others, which are spelled as other words are (bis: 20 or poison)."""
_KEEP: Final = frozenset(
    ["chess", "cheat", "chast", "heath", "health", "great", "sleep", "beats", "heard", "stoke", "broke", "breast",
     "death", "breathing",
     "breath", "breathe", "women", "woman", "there", "where", "these", "those", "think", "thing", "things", "night",
     "right", "light", "might", "eight", "weight", "height", "fight", "sight", "bright", "slight", "could", "would",
     "should", "while", "white", "write", "other", "mother", "brother", "father", "rather", "bother", "after",
     "water", "later", "every", "never", "fever", "lever", "clever", "being", "bring", "doing", "going", "still",
     "skill", "spill", "pills", "bills", "wills", "hills", "until", "today", "stand", "hands", "bands", "lands",
     "place", "plate", "plane", "start", "smart", "party", "parts", "hearing", "wearing", "bearing", "during",
     "blood", "flood", "food", "good", "mood", "wood", "foot", "feet", "feel", "feels", "heel", "back", "neck",
     "pain", "paid", "rain", "main", "gain", "plain", "brain", "train", "drain", "grain", "again", "stain", "face",
     "race", "pace", "lace", "hand", "sand", "land", "band", "limp", "lump", "jump", "pump", "dump", "lips", "hips",
     "tips", "dips", "clips", "shock", "stock", "clock", "block", "black", "snake", "shake", "snack", "stake", "taste",
     "waste", "paste", "haste", "thought", "bought", "fought", "brought", "through", "thorough", "though", "tough",
     "rough", "cough", "bite", "site", "kite", "rope", "hope", "live", "life", "like", "hike", "line", "lives",
     "sting", "string", "spring", "swelling", "smelling", "selling", "telling", "spelling", "dwelling", "turning",
     "burning", "burping", "jumping", "drinking", "thinking", "shrinking", "walking", "talking", "working", "sudden",
     "hidden", "stable", "table", "tablet", "cable", "attach", "attached", "scared", "shared", "cared", "child",
     "wild", "mild", "build", "chill", "died", "dies", "diet", "tied", "lied", "dried", "fried", "tried", "trial",
     "hurry", "hurt", "hunt", "hut", "shut", "shot", "short", "sort", "sport", "spot", "numb", "thumb", "dumb",
     "drug", "drum", "drop", "crop", "shop", "stop", "step", "steep", "sheep", "keep", "deep", "weep", "poison",
     "person", "prison", "pension", "vision", "mission", "ribs", "tired", "wired", "hired", "fired", "raped",
     "taped", "shaped", "gun", "sun", "run", "fun", "swallow", "shallow", "follow", "yellow", "bleach", "beach",
     "reach", "teach", "peach",
      "preach", "swell", "smell", "shell", "spell", "passed", "massed", "missed", "bottle", "battle",
     "settle", "little", "weekly", "weakly", "stroll", "stool", "school", "floor", "flower", "power", "lower",
     "slower", "breaks", "breads", "dreams", "creams", "streams", "bleeds", "needs", "seeds", "feeds"]
)  # fmt: skip
"""Words that are one letter away from a word of the list and are meant as they stand."""


MARKERS: Final = frozenset(
    ["idiom", "negation", "negation_after", "no_negation", "past", "resolved", "now", "asking", "unknown", "supposing",
     "fiction", "own_now", "filler", "list_end"]
)  # fmt: skip
"""Concepts that say how something is told. They take signs away, and so no slip of the pen makes a Nepali word one."""
_DETERMINERS: Final = frozenset({"a", "an", "the", "any", "my", "his", "her", "our", "your", "their"})
_AS_IT_STANDS: Final = frozenset({"see", "feel", "say", "be", "have", "get", "go", "find", "take", "think", "wait"})
"""Verbs of which "doesn't" means something else than "can't": "it doesn't feel right", "not seeing anybody"."""


class Lexicon:
    """The list, compiled."""

    def __init__(self, document: _Document) -> None:
        self.rules = document.rules
        self.certain = frozenset(rule.id for rule in document.rules if rule.certain)
        self.root = Node()
        self.combinations: dict[str, list[Combination]] = {}
        """By their first concept."""
        self._whole: set[str] = set()
        self._beginnings: dict[str, int] = {}
        self._signs: set[str] = set()
        """Words of what is a sign; those of markers alone are not guessed from a slip of the pen."""
        self._typos: dict[str, set[str]] = {}
        self._known: dict[tuple[str, ...], Known] = {}
        for name, phrases in document.concepts.items():
            self._add(name, phrases)
        for rule in document.rules:
            own = f"={rule.id}"
            self._add(own, rule.say)
            wholes = [(own,)] if rule.say.en or rule.say.ne else []
            for concepts in (*wholes, *(tuple(part.strip() for part in each.split("+")) for each in rule.when)):
                named = {name for name in (*concepts, *rule.unless) if not name.startswith("=")}
                unknown = named - set(document.concepts)
                if unknown:
                    raise ValueError(f"rules.yaml: rule {rule.id} names unknown concepts: {', '.join(sorted(unknown))}")
                self.combinations.setdefault(concepts[0], []).append(Combination(rule, concepts))
        self._index_typos()

    def known(self, word: Word) -> Known:
        """Return what of the list a word may be."""
        if word.is_pause:
            return _NOTHING
        if word.number is not None:
            numbers = {name for name, is_it in _NUMBERS if is_it(word.number)}
            return self._told_of(frozenset(numbers | self._whole.intersection(word.keys)))
        found = self._known.get(word.keys)
        if found is None:
            found = self._told_of(frozenset(self._resolve(word.keys)))
            if len(self._known) < 50_000:
                self._known[word.keys] = found
        return found

    def _told_of(self, words: frozenset[str]) -> Known:
        begins = tuple((node, is_open(word)) for word in words if (node := self.root.next.get(word)) is not None)
        return Known(words, begins, any("filler" in node.concepts for node, _ in begins))

    def _resolve(self, keys: tuple[str, ...]) -> Iterator[str]:
        if not _SPELLED.isdisjoint(keys):
            yield from ("#many", "#number")
        exact = False
        for key in keys:
            if key in self._whole:
                exact = exact or not key.startswith((NEPALI, NOT_DONE))
                yield key
            if key.startswith(NOT_DONE):
                continue
            for end in range(2, len(key) + 1):
                if key[:end] in self._beginnings:
                    exact = exact or not key.startswith(NEPALI)
                    yield f"{key[:end]}*"
        if exact or keys[0] in _KEEP:
            return
        for key in keys:
            if key.startswith(NOT_DONE):
                continue
            if key.startswith(NEPALI) and not keys[0].startswith(NEPALI):
                continue  # romanised spelling varies enough as it is
            if len(key) >= (_NEPALI_TYPO if key.startswith(NEPALI) else 4) and key not in _KEEP:
                for cut in _cuts(key):
                    yield from (word for word in self._typos.get(cut, ()) if _is_near(key, word.removesuffix("*")))

    def _add(self, concept: str, phrases: Phrases) -> None:
        for phrase in phrases.en:
            words = phrase.split()
            self._insert(concept, [(word,) for word in words])
            joined = "".join(words)
            if len(words) > 1 and len(joined) >= _JOINED and not re.search(r"[*#]", joined):
                self._insert(concept, [(joined,)])
            if concept in MARKERS:
                continue
            bare = [word for word in words[1:-1] if word not in _DETERMINERS]
            if len(words) - 2 - len(bare) > 0:  # "stuck in his throat": any other's, too, for fillers may stand between
                words = [words[0], *bare, words[-1]]
                self._insert(concept, [(word,) for word in words])
            if len(words) > 1 and words[0] in INABLE and words[1].isalpha() and words[1] not in _AS_IT_STANDS:
                self._insert(concept, [(NOT_DONE,), (NOT_DONE + stem(words[1]),), *((word,) for word in words[2:])])
        for phrase in phrases.ne:
            self._insert(concept, [_nepali(word) for word in phrase.split()])

    def _insert(self, concept: str, words: list[tuple[str, ...]]) -> None:
        nodes = [self.root]
        for spellings in words:
            if concept not in MARKERS:
                self._signs.update(spelling.removesuffix("*") for spelling in spellings)
            for spelling in spellings:
                if spelling.endswith("*"):
                    self._beginnings[spelling[:-1]] = 1
                elif not spelling.startswith("#"):
                    self._whole.add(spelling)
            nodes = [node.next.setdefault(spelling, Node()) for node in nodes for spelling in spellings]
        for node in nodes:
            node.concepts.add(concept)

    def _index_typos(self) -> None:
        for word in [
            *(each for each in self._whole if not each.startswith(NOT_DONE)),
            *(f"{each}*" for each in self._beginnings),
        ]:
            if word.startswith(NEPALI) and word.removesuffix("*") not in self._signs:
                continue
            if len(word) >= (_NEPALI_TYPO if word.startswith(NEPALI) else 4):
                for cut in _cuts(word.removesuffix("*")):
                    self._typos.setdefault(cut, set()).add(word)


def _nepali(word: str) -> tuple[str, ...]:
    if word.startswith("#"):
        return (word,)
    star = "*" if word.endswith("*") else ""
    bare = word.removesuffix("*")
    spelled = skeletons(bare)
    if star:  # the end of a beginning is no end of a word: its vowel stays as it is written
        spelled = tuple(each for each in spelled)
    return tuple(f"{NEPALI}{each}{star}" for each in spelled)


def _cuts(word: str) -> Iterator[str]:
    """Yield a word, and it without each of its letters."""
    yield word
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]


def _is_near(one: str, other: str) -> bool:
    """Tell whether two words differ by one letter, or by two neighbours that changed places, but not in the first."""
    if one[0] != other[0] or (one[:1] == NEPALI and one[1:2] != other[1:2]):
        return False
    if len(one) == len(other):
        differ = [place for place in range(len(one)) if one[place] != other[place]]
        if len(differ) == 1:
            return len(one) > 5
        return len(differ) == 2 and differ[1] == differ[0] + 1 and sorted(one) == sorted(other)
    short, long = sorted((one, other), key=len)
    return len(long) - len(short) == 1 and len(long) > 4 and any(short == cut for cut in _cuts(long))


@cache
def lexicon() -> Lexicon:
    """Return the list that comes with this package."""
    raw = resources.files("neurons.emergency").joinpath("rules.yaml").read_bytes()
    return Lexicon(_Document.model_validate(yaml.safe_load(raw)))
