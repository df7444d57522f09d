"""A message as words: what hides a word is taken away, and each word gets the keys under which it may be known.

A key is a word of English, or `~` and the skeleton of a Nepali word: one spelling for Devanagari, for the many ways
in which Nepali is written in Latin letters ("chhati", "xati", "chati"), and for long and short vowels mixed up.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from neurons.invisible import is_invisible

MAX_CHARACTERS: Final = 4000
"""Of a message so many are read from its beginning and as many from its end."""
NEPALI: Final = "~"

LOOK_ALIKES: Final = str.maketrans(
    "аеорсухіјѕһԁԛԝкмтвнαορεικνυτ" + "\u2019\u02bc\u2018`\u00b4",
    "aeopcyxijshdqwkmtbhaopeiknyt" + "'" * 5,
)
"""Small letters of Cyrillic and Greek that look like Latin ones."""
_LEET: Final = str.maketrans("013457@$!|+", "oieastasiit")
_TOKEN: Final = re.compile(
    r"\d+(?:[.]\d+)?(?![\w@$!|])|[^\W_][\w'@$!|+*\u0900-\u097f]*[\w\u0900-\u097f]|[^\W_]|[@$][\w]+|[.?!।;\n,:()/]"
)
_ENDS: Final = frozenset(".?!।;\n")
_PAUSES: Final = frozenset(",:()/")
_DOTTED: Final = re.compile(r"(?<![^\W_])(?:[^\W\d_][.\-_*/ ]{1,2}){3,}[^\W\d_](?![^\W_])")
_LONG: Final = re.compile(r"(.)\1{2,}")
_DOUBLE: Final = re.compile(r"(.)\1+")


@dataclass(frozen=True, slots=True)
class Word:
    """One word, or a pause (a comma and the like), under the keys by which a rule may know it."""

    keys: tuple[str, ...]
    is_pause: bool = False
    number: float | None = None


Sentence = tuple[Word, ...]


def clean(text: str) -> str:
    """Return a text in small letters without what nobody sees, look-alikes of other scripts folded into Latin ones."""
    if len(text) > 2 * MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}\n{text[-MAX_CHARACTERS:]}"
    if not text.isascii():
        # Joiners are seen in Devanagari, yet mean nothing here.
        text = "".join(each for each in unicodedata.normalize("NFKC", text) if not is_invisible(each) or each == "\n")
        text = "".join(_unaccented(each) for each in text)
    text = text.casefold()
    return text if text.isascii() else text.translate(LOOK_ALIKES)


def _unaccented(character: str) -> str:
    if character.isascii() or "\u0900" <= character <= "\u097f":
        return character
    return unicodedata.normalize("NFD", character)[0]


def sentences(text: str) -> tuple[tuple[Sentence, bool], ...]:
    """Return the sentences of a text, and of each whether it is a question."""
    text = _DOTTED.sub(lambda match: re.sub(r"[^\w]|_", "", match[0]), clean(text))
    may_be_nepali = not is_english(text)
    found: list[tuple[Sentence, bool]] = []
    words: list[Word] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _ENDS:
            if words:
                found.append((tuple(words), token == "?"))  # noqa: S105 - a question mark
                words = []
        elif token in _PAUSES:
            words.append(Word((), is_pause=True))
        else:
            words.append(_word(token, may_be_nepali=may_be_nepali))
    if words:
        found.append((tuple(words), False))
    return tuple(found)


def is_english(text: str) -> bool:
    """Tell whether a text in small letters has words that are English alone, and none that are Nepali alone."""
    words = set(_LETTERS.findall(text))
    return not words.isdisjoint(_ENGLISH) and words.isdisjoint(_NOT_ENGLISH) and not _DEVANAGARI.search(text)


_LETTERS: Final = re.compile(r"[a-z0-9']+")
_DEVANAGARI: Final = re.compile(r"[\u0900-\u097f]")
_ENGLISH: Final = frozenset(
    ["the", "i", "i'm", "im", "my", "is", "are", "was", "and", "a", "of", "for", "it", "he", "she", "his", "her",
     "have", "has", "can't", "can", "cant", "do", "what", "how", "not", "with", "in", "on",
     "you", "your", "we", "our", "they"]
)  # fmt: skip
_NOT_ENGLISH: Final = frozenset(
    ["cha", "chha", "xa", "chaina", "xaina", "chhaina", "chan", "chu", "chhu", "xu", "hoina", "haina", "mero", "malai",
     "lai", "ko", "le", "bata", "dekhi", "bhayo", "vayo", "bhako", "bhaxa", "bhaye", "bhayena", "thiyo", "huncha",
     "hunu", "hunxa", "garna", "garne", "garnu", "garchu", "gareko", "kati", "kasto", "kina", "kaha", "tara", "ahile",
     "aaja", "hijo", "bholi", "baba", "buwa", "aama", "dai", "bhai", "didi", "bahini", "chora", "chori", "baccha",
     "bacha", "dukheko", "dukhcha", "dukhyo", "lagyo", "lageko", "lagcha", "aayo", "ayo", "aucha", "parcha", "khayo",
     "khaye", "marna", "tokyo", "usle", "timi", "tapai", "ekdam", "dherai", "ekkasi", "pani", "ani", "tauko", "ragat",
     "chhati", "chati", "xati", "saas", "sas"]
)  # fmt: skip


_WRITTEN_SHORT: Final = {
    "yr": "year", "yrs": "years", "hr": "hour", "hrs": "hours", "min": "minute", "mins": "minutes", "wk": "week",
    "wks": "weeks", "mnth": "month", "mnths": "months", "mth": "month", "mths": "months", "cnt": "cant",
    "cudnt": "couldnt",
}  # fmt: skip
INABLE: Final = frozenset({"cant", "cannot", "couldnt", "wont", "wouldnt"})
"""That somebody can't do a thing is often told as that it isn't done: "isn't waking" for "can't wake"."""
NOT_DONE: Final = "!"
"""Marks the keys by which both are known: of the negation alone, and before the stem of what isn't done."""
_UNDONE: Final = INABLE | {"isnt", "arent", "not", "doesnt"}
_IRREGULAR: Final = {
    "making": "make", "makes": "make", "breathing": "breathe", "breath": "breathe", "waking": "wake", "moving": "move",
    "swallowing": "swallow", "speaking": "speak", "writing": "write", "opening": "open", "using": "use",
}  # fmt: skip
_ENDING: Final = re.compile(r"(?:(?<=[a-z]{3})ing|(?<=[a-z]{3})(?<!s)s)$")


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Return an English verb without the ending of "is waking" or "wakes"; past forms stay, for they tell of then."""
    bare = _IRREGULAR.get(word) or _ENDING.sub("", word)
    return bare[:-1] if len(bare) > 3 and bare[-1] == bare[-2] and bare[-1] in "bdgmnprt" else bare


@lru_cache(maxsize=20_000)
def _word(token: str, *, may_be_nepali: bool) -> Word:
    token = token.replace("'", "").strip("*")
    try:
        number = float(token) if token[:1].isdigit() else None  # a nan is a grandmother
    except ValueError:
        number = None
    if number is not None:
        plain = str(int(number)) if number.is_integer() and number < 1e15 else token
        return Word((plain, NEPALI + plain), number=number)
    if "\u0900" <= token[:1] <= "\u097f":
        return Word(tuple(NEPALI + each for each in _with_other_persons(skeletons(token))))
    keys = [token]
    if token in _WRITTEN_SHORT:
        keys.append(_WRITTEN_SHORT[token])
    if token.isascii() and token.isalpha():
        keys += [NOT_DONE] if token in _UNDONE else [NOT_DONE + stem(token)]
    if not token.isalpha():
        keys.append(token.translate(_LEET))
    if _LONG.search(token):
        keys += [_LONG.sub(r"\1\1", token), _LONG.sub(r"\1", token)]
    if may_be_nepali:
        keys += [NEPALI + each for each in _with_other_persons(skeletons(token))]
    return Word(tuple(dict.fromkeys(keys)))


# Nepali

_CONSONANTS: Final = dict(zip(
    "कखगघङचछजझञटठडढणतथदधनपफबभमयरलवशषसहक़ज़फ़ड़ढ़ऱ",
    ["k", "k", "g", "g", "n", "c", "c", "j", "j", "n", "t", "t", "d", "d", "n", "t", "t", "d", "d", "n", "p", "p",
     "b", "b", "m", "y", "r", "l", "b", "s", "s", "s", "h"],
    strict=False,
))  # fmt: skip
_CONSONANTS["ऱ"] = "r"
_SIGNS: Final = {"ा": "a", "ि": "i", "ी": "i", "ु": "u", "ू": "u", "े": "e", "ै": "ai", "ो": "o", "ौ": "au", "ृ": "ri"}
_VOWELS: Final = {"अ": "a", "आ": "a", "इ": "i", "ई": "i", "उ": "u", "ऊ": "u", "ए": "e", "ऐ": "ai", "ओ": "o",
                  "औ": "au", "ऋ": "ri"}  # fmt: skip
_VIRAMA: Final = "्"
_LATIN: Final = tuple((re.compile(pattern), to) for pattern, to in (
    (r"(?<=[a-z])6|6(?=[a-z])", "c"), (r"chh|ch|x", "c"), (r"([kgtdbpjs])h", r"\1"), (r"ph|f", "p"), (r"[vw]", "b"),
    (r"z", "j"), (r"q", "k"), (r"ee|ii", "i"), (r"oo|uu", "u"), (r"ng(?=[^aeiou]|$)", "n"),
))  # fmt: skip


@lru_cache(maxsize=20_000)
def skeletons(word: str) -> tuple[str, ...]:
    """Return the spellings that stand for a Nepali word: one, or two where a vowel is nasal and may be written so."""
    if "\u0900" <= word[:1] <= "\u097f":
        spelled = [_devanagari(word, nasal="n")]
        if "ँ" in word or "ं" in word:
            spelled.append(_devanagari(word, nasal=""))
    else:
        latin = word
        for pattern, to in _LATIN:
            latin = pattern.sub(to, latin)
        spelled = [latin]
    return tuple(dict.fromkeys(_short(each) for each in spelled))


_PERSONS: Final = tuple((re.compile(pattern), to) for pattern, to in (
    (r"(?<=..)nubayo$", "yo"), (r"(?<=..)(?:in|i|e)$", "yo"), (r"(?<=..)nuba(?:ye|e)?ko$", "eko"),
    (r"(?<=.[^aeiou])(?:eki|ek|yako|ako|yeko|ya|y)$", "eko"),
))  # fmt: skip
_NO_VERBS: Final = frozenset({"bai", "dai", "gai", "ai", "didi", "ani", "bahini", "pani", "aba"})
"""Skeletons of little words that only look like a verb's feminine: brother, sister, cow, water."""


def _with_other_persons(spelled: tuple[str, ...]) -> tuple[str, ...]:
    """Add the third person's masculine past and participle, which the list has, of other persons and colloquial ones.

    "She ate" (khai, khain), "they ate" (khae) and the polite khanubhayo are read as khayo, chaleki and chalya as
    chaleko.
    """
    more = [pattern.sub(to, each) for each in spelled if each not in _NO_VERBS for pattern, to in _PERSONS]
    return tuple(dict.fromkeys((*spelled, *more)))


def _devanagari(word: str, *, nasal: str) -> str:
    out: list[str] = []
    for place, character in enumerate(word):
        following = word[place + 1 : place + 2]
        if (consonant := _CONSONANTS.get(character)) is not None:
            out.append(consonant)
            if following and following not in _SIGNS and following not in (_VIRAMA, "़"):
                out.append("a")
        elif character in "ँं":
            out.append(nasal)
        else:
            out.append(_SIGNS.get(character) or _VOWELS.get(character) or (character if character.isalnum() else ""))
    return "".join(out)


def _short(word: str) -> str:
    word = _DOUBLE.sub(r"\1", word)
    return word[:-1] if len(word) > 3 and word.endswith("a") else word
