"""Names and towns that people write in lower case: before "from TOWN", after "Thanks," and "This is", at the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from neurons.privacy.vocabulary import NAME_WORDS, ORDINARY, ROMANISED_ORDINARY, SURNAME_WORDS, is_medicine
from neurons.privacy.words import AMBIGUOUS, EPONYMS, NOT_NAMES, ROMANISED_WORDS

_WORD: Final = r"[^\W\d_][^\W\d_'’-]*(?:['’-][^\W\d_]+)*"
_NAME: Final = rf"(?P<name>{_WORD}(?:\s+{_WORD}){{0,2}}?)"
_GREETING: Final = r"(?:(?:hi|hello|hey|namaste|good\s+(?:morning|evening|afternoon)|dear\s+\w+)(?:\s+(?:doctor|doc|dr|there|sir|madam))?[\s,.!-]+)"
_START: Final = rf"(?:^|[\n.!?]\s*|{_GREETING})"
_END: Final = r"(?=\s*(?:[.!,;:\n(]|$))"
_NO_TOWN: Final = r"(?!(?:the|a|an|my|his|her|our|your|their|this|that|these|those|it|work|home|school|bed|time|now|here|there|one|each|any)\b)"
_PATTERNS: Final = (
    # "sita from pokhara", "hello, ram here"
    re.compile(rf"{_START}(?:(?:i\s*am|i'm|im|this\s+is|it\s+is|it's|myself|me)\s+)?{_NAME}(?:\s+here)?\s+from\s+{_NO_TOWN}{_WORD}", re.IGNORECASE),
    re.compile(rf"{_START}{_NAME}\s+(?:here|speaking)(?=\s*[,.!\n]|\s*$|\s+(?:from|and|again))", re.IGNORECASE),
    # "this is maya gurung, …", "it's peter again"
    re.compile(rf"{_START}(?:this\s+is|it\s+is|it's|here\s+is)\s+{_NAME}(?=\s*[,.;!\n]|\s*$|\s+(?:here|again|speaking|calling|writing|and|from|with|i|my|the)\b)", re.IGNORECASE),
    re.compile(rf"\b(?:speaking\s+(?:is|with|to)|you\s+can\s+call\s+me|call\s+me|people\s+call\s+me|i\s+go\s+by|signed(?:\s+by)?)[\s:,-]+{_NAME}{_END}", re.IGNORECASE),
    # "thanks, ram sharma" at the end of a line
    re.compile(rf"\b(?:thx|(?:many\s+)?(?:thanks|thank\s+you)(?:\s+(?:again|a\s+lot|so\s+much|very\s+much|in\s+advance))?|regards|best|best\s+regards|kind\s+regards"
               rf"|warm\s+regards|yours|sincerely|cheers|love|best\s+wishes|bye|take\s+care|respectfully)\s*[,.!\-–—\n]\s*[-–—]?\s*{_NAME}\s*[.!]*\s*(?=$|\n)", re.IGNORECASE),
    # "Thank you doctor. ganga jirel, Jhochhen"
    re.compile(rf"\b(?:thanks|thank\s+you)\s+(?:doctor|doc|dr|sir|madam)\s*[.,!\n]\s*{_NAME}\s*(?=,|[.!]*\s*$)", re.IGNORECASE),
    # "you can reach my wife olga summers on …"
    re.compile(rf"\b(?:reach|call|contact|phone|ring|text|tell|inform|ask)\s+(?:my|our)\s+\w+(?:-in-law)?,?\s+{_NAME}(?=\s+(?:on|at|under|about|if|for)\b)", re.IGNORECASE),
    re.compile(rf"(?:^|\n)\s*(?:--?|–|—|~)\s*{_NAME}\s*(?=$|\n)", re.IGNORECASE),
    re.compile(rf"\b(?:patient|pt|name|full\s+name|client|caller|contact|next\s+of\s+kin|emergency\s+contact|guardian)\s*(?:name)?\s*[:=]\s*{_NAME}(?=\s*(?:[,;.(/|\n]|$|\d|-\s))", re.IGNORECASE),
    re.compile(rf"\b(?:husband|wife|son|daughter|mother|father|mum|mom|dad|sister|brother|partner|aunt|uncle|grandmother|grandfather|grandma|grandpa"
               rf"|niece|nephew|cousin|neighbou?r|friend|baby|boyfriend|girlfriend|roommate|colleague)\s+(?:is\s+)?(?:named|called|name\s+is|whose\s+name\s+is)\s+{_NAME}"
               r"(?=\s*(?:[.,;!?\n]|$)|\s+(?:has|had|is|was|and|who|will|needs|got|also|says|cannot|can)\b)", re.IGNORECASE),
    # "MAYA GURUNG 34/F", "Hari Koirala, 62 yrs/M", as notes begin
    re.compile(rf"(?:^|[\n:.;]\s*|\b(?:pt|patient|c/o|mr|mrs|ms)\.?\s+){_NAME}\s*[,(-]?\s*\d{{1,3}}\s*-?(?:y|yrs?|years?|yo|y/o|yr\s+old|m|months?|mo)?\.?"
               r"\s*[/,| -]\s*(?:m|f|male|female)\b", re.IGNORECASE),
    re.compile(rf"\bon\s+behalf\s+of\s+(?:(?:my|our)\s+\w+,?\s+)?{_NAME}(?=\s*(?:[.,;!?\n]|$)|\s+(?:who|because|about)\b)", re.IGNORECASE),
)  # fmt: skip
_NEVER: Final = (ROMANISED_WORDS - AMBIGUOUS) | EPONYMS | NOT_NAMES | frozenset(
    ["in", "advance", "lot", "much", "very", "kind", "kindly", "everyone", "anyone", "all", "again", "soon", "later", "god", "bless", "care", "team", "staff", "folks", "guys", "friend", "friends", "the", "a", "an", "this", "that", "it", "any", "every", "some", "pain", "suffering", "discharge", "bleeding", "itching", "coming", "home", "back", "away", "far", "apart", "aside", "recovering", "recovered", "serious", "important", "an-emergency", "emergency", "ridiculous", "getting", "making", "driving", "killing", "about", "regarding", "why", "where", "what", "when", "how", "who", "which", "not", "no", "nothing", "something", "just", "only", "really", "so", "such", "too", "quite", "getting", "going", "scary", "worrying", "frightening", "confusing", "frustrating", "unbearable", "because", "since", "for", "with", "without", "after", "before", "during", "between", "under", "over", "still", "always", "never", "ever", "often", "sometimes", "mostly", "usually", "blood", "mucus", "fluid", "pus", "urine", "stool", "water", "food", "milk", "medicine", "medication", "tablets", "pills", "injection", "insulin", "symptoms", "results", "test", "tests", "different", "similar", "same", "other", "another", "first", "second", "third", "new", "old", "recent", "late", "early", "long", "short", "high", "low", "weight", "loss", "gain", "sleep", "appetite", "infection", "injury", "accident", "surgery", "operation", "treatment", "therapy", "exercise", "diet", "question", "questions", "advice", "help", "answer", "reply", "response", "waiting", "hoping", "looking", "grateful", "thankful", "appreciated", "appreciate", "respect", "worried", "concerned", "confused", "doctor's", "dr", "doc", "doctors", "nurse", "nurses", "hospital", "pharmacist", "surgeon", "specialist", "consultant", "gp", "physician", "dentist", "therapist", "most", "best", "worst", "good", "bad", "great", "fine", "ok", "okay", "yes", "no", "maybe", "perhaps", "possible", "likely", "unlikely", "common", "rare", "safe", "unsafe", "dangerous", "harmless", "her", "his", "their", "your", "our", "its", "him", "them", "us", "they", "you", "we", "he", "she", "i", "me", "my", "mine", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "one", "am", "is", "are", "was", "were", "be", "been", "being", "have", "has", "had", "do", "does", "did", "will", "would", "should", "could", "can", "may", "might", "must", "shall", "happens", "happened", "happening", "comes", "came", "goes", "went", "hurts", "helped", "works", "worked", "seems", "seemed", "looks", "feels", "felt", "keeps", "kept", "radiates", "spreads", "spread", "starting", "started", "starts", "ranging", "ranges", "rising", "arising", "resulting", "results", "varying", "apparently", "anyway", "also", "then", "now", "today", "tomorrow", "yesterday"]
)  # fmt: skip
_WEAK: Final = (_PATTERNS[1], _PATTERNS[2])
"""What announces things too: "this is Pan-D"."""
_SIGNED: Final = _PATTERNS[3:]
"""What announces nothing but people, at an end of what they write or before their age."""
_GRAMMAR: Final = (ROMANISED_WORDS - AMBIGUOUS - NAME_WORDS - SURNAME_WORDS) | (
    _NEVER - EPONYMS - NAME_WORDS - SURNAME_WORDS - ROMANISED_WORDS
)
_BEGINS_A_SENTENCE: Final = frozenset(
    [
        "a",
        "an",
        "the",
        "my",
        "your",
        "his",
        "her",
        "our",
        "their",
        "its",
        "this",
        "that",
        "these",
        "those",
        "some",
        "any",
        "all",
        "every",
        "each",
        "no",
        "not",
        "never",
        "i",
        "we",
        "you",
        "he",
        "she",
        "it",
        "they",
        "who",
        "what",
        "when",
        "where",
        "why",
        "how",
        "which",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "am",
        "do",
        "does",
        "did",
        "have",
        "has",
        "had",
        "can",
        "could",
        "would",
        "should",
        "must",
        "shall",
        "might",
        "for",
        "in",
        "on",
        "at",
        "to",
        "with",
        "without",
        "from",
        "of",
        "off",
        "by",
        "about",
        "after",
        "before",
        "until",
        "since",
        "and",
        "or",
        "but",
        "so",
        "if",
        "because",
        "as",
        "than",
        "then",
        "there",
        "here",
        "now",
        "still",
        "also",
        "just",
        "only",
        "very",
        "too",
        "quite",
        "really",
        "please",
        "sorry",
        "dear",
        "hope",
        "hoping",
        "looking",
        "waiting",
        "take",
        "taking",
        "took",
        "feel",
        "feeling",
        "get",
        "getting",
        "got",
        "see",
        "need",
        "want",
        "dr",
        "doctor",
        "doc",
        "sir",
        "madam",
        "again",
        "much",
        "more",
        "most",
        "many",
        "few",
        "both",
        "next",
        "last",
    ]
)
_SPEAKS: Final = (
    r"(?:says|said|told|tells|asked|asks|thinks|thought|wants|wanted|has|had|is|was|takes|took|needs|needed|got|gets|lives|lived|feels|felt|cannot|can't|came"
    r"|went|died|fainted|fell|broke|gave|complains|suffers|smokes|drinks|weighs|keeps|lost|started|uses)"
)
_RELATIVE: Final = (
    r"(?:husband|wife|son|daughter|mother|father|mum|mom|dad|sister|brother|partner|aunt|uncle|grandmother|grandfather|grandma|grandpa"
    r"|niece|nephew|cousin|neighbou?r|friend|boyfriend|girlfriend|roommate|colleague|boss|teacher|maid|(?:mother|father|sister|brother|son|daughter)-in-law)"
)
_SAID: Final = (
    # "my friend will says", "our neighbour olumide has …": a third person speaks or acts, so the word before is who
    re.compile(rf"\b(?:my|our|his|her|their)\s+(?:\w+\s+)?{_RELATIVE},?\s+(?P<name>{_WORD})\s+{_SPEAKS}\b", re.IGNORECASE),
    # "I'm Hope, 29, and …"
    re.compile(rf"\b(?:i\s+am|i'm|im)\s+(?P<name>{_WORD}),\s*(?:aged?\s+)?\d{{1,2}}\b(?!\s*(?:weeks?|months?|days?|hours?|mg|kg|/|%|[.]\d))", re.IGNORECASE),
    # "Utsav Byansi was seen at the clinic"
    re.compile(r"(?:^|[\n.!?]\s+)(?P<name>(?-i:[A-ZÀ-Þ][a-zß-ÿ]+\s+[A-ZÀ-Þ][a-zß-ÿ]+))\s+(?:was\s+(?:seen|admitted|discharged|referred|born|brought|diagnosed|operated)|came|presented"
               r"|complain\w+|told|asked|said|says|rang|phoned|needs|lives|works|died|fell)\b", re.IGNORECASE),
    # "Teodoro gave him ibuprofen", and not "Brufen gave him a rash"
    re.compile(r"(?:^|[\n.!?]\s+)(?P<name>(?-i:[A-ZÀ-Þ][a-zß-ÿ]+))\s+(?:told|asked|said|says|brought|thinks|wants|phoned|rang|(?:gave|took|saw)\s+(?:him|her|them|us|me|it)"
               r"(?!\s+(?:an?|some|bad|terrible|severe|awful|nausea|headaches?|diarrh\w+|cramps|hives|the)\b))\b", re.IGNORECASE),
)  # fmt: skip
_TITLE: Final = re.compile(r"(?:dr|doctor|prof|professor|nurse)\.?\s", re.IGNORECASE)
_TITLED: Final = re.compile(r"\b(?:dr|doctor|prof|professor|nurse)\.?\s+$", re.IGNORECASE)
_VERBISH: Final = re.compile(
    r"(?:ing|tion|tions|ness|ment|ments|ally|fully|ously|itis|emia|aemia|osis|algia|\w{2}tomy|ology|scopy|graphy|plasty|pathy|plegia|paresis|rrh(?:o?ea|age)|lysis|metry|stasis|centesis|[a-z]{3}uria|penia|philia|phobia|trophy|plasia)$",
    re.IGNORECASE,
)
_TOWNS: Final = (
    re.compile(r"\b(?:i\s+am|i'm|im|we\s+are|she\s+is|he\s+is|come|comes|came|moved|writing|calling|live|lives|lived|living|reside[sd]?|born|raised|grew\s+up|staying|based|settled)"
               rf"\s+(?:here\s+|over\s+|originally\s+|up\s+)?(?:from|in|at|near|to|outside)\s+(?P<town>{_WORD}(?:\s+(?-i:[A-Z])[\w'-]+){{0,2}})", re.IGNORECASE),
    re.compile(rf"{_START}(?:(?:i\s*am|i'm|im|this\s+is|myself)\s+)?{_WORD}(?:\s+{_WORD})?(?:\s+here)?\s+from\s+{_NO_TOWN}(?P<town>{_WORD}(?:\s+(?-i:[A-Z])[\w'-]+){{0,2}})", re.IGNORECASE),
    # "Thank you doctor. Kamal Rai, Sanepa"
    re.compile(r"\b(?:thanks|thank\s+you|regards|dhanyabaa?d|dhanyawaa?d|sincerely|cheers)(?:\s+(?:so\s+much|a\s+lot|doctor|doc|dr|sir|madam))?\s*[.,!\n]\s*(?-i:[A-Z])[\w'-]+(?:\s+(?-i:[A-Z])[\w'-]+){0,2},\s*"
               r"(?P<town>(?-i:[A-Z])[\w'-]+(?:\s+(?-i:[A-Z])[\w'-]+){0,2})\s*[.!]*\s*(?=$|\n)", re.IGNORECASE),
    re.compile(r"\b(?:home\s*town|city|town|village|address|place\s+of\s+birth)\s*(?:is|:|=)\s*(?P<town>(?-i:[A-Z])[\w'-]+(?:\s+(?-i:[A-Z])[\w'-]+){0,2})", re.IGNORECASE),
)  # fmt: skip

_COME_IN: Final = re.compile(r"(?:come|comes|came)\s+(?:here\s+|over\s+|up\s+)?(?:in|at|near|to)\b", re.IGNORECASE)
"""Before a word in lower case it says how or for what somebody comes ("come in person"), seldom to which town."""


def names(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the words of announced names that could be nobody's but a person's."""
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if _TITLE.match(match["name"] + " "):
                continue
            words = [word[0] for word in re.finditer(_WORD, match["name"])]
            if (
                pattern is _PATTERNS[0]
                and len(words) == 1
                and words[0].lower() in ORDINARY - NAME_WORDS - SURNAME_WORDS
            ):
                continue  # "Referred from …": where a sentence begins a capital says nothing
            if _is_a_name(words, signed=pattern in _SIGNED) and not (pattern in _WEAK and _is_a_medicine(words)):
                yield "name", match.start("name"), match.end("name")
    for pattern in _SAID:
        for match in pattern.finditer(text):
            if _may_be_called(match["name"]) and not _TITLED.search(
                text, max(0, match.start("name") - 12), match.start("name")
            ):
                yield "name", match.start("name"), match.end("name")


def towns(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the towns that somebody says to live in or to come from."""
    for pattern in _TOWNS:
        for match in pattern.finditer(text):
            town = match["town"].split()
            if town[0][0].islower() and _COME_IN.match(match[0]):
                continue
            if town[0][0].isupper() or not is_common(town[0]):
                yield "place", *match.span("town")


def is_common(word: str) -> bool:
    """Tell whether a word is an ordinary one, or an eponym or a drug: not what somebody is called."""
    lower = word.lower().removesuffix("'s").replace("’", "'")
    return (
        lower in _NEVER
        or len(lower) < 2
        or (
            word.islower()
            and (
                lower in ORDINARY
                or lower in ROMANISED_ORDINARY
                or is_medicine(lower)
                or _VERBISH.search(lower) is not None
            )
        )
    )


def _is_a_name(words: list[str], *, signed: bool) -> bool:
    """Tell whether announced words are a name rather than a sentence ("this is getting worse", "thanks for all").

    An ordinary word passes as the surname behind a given name ("jeremiah king"), as the given name before a surname
    ("nar sunar"), and alone where it is signed or has a capital.
    """
    if len(words) > 1 and not (is_common(words[-1].lower()) or is_common(words[-1])):
        # Before an unknown word even one of grammar is a given name ("per nilsson", "said andersson"), at a letter's end.
        first = words[0].lower()
        if first not in _BEGINS_A_SENTENCE and (signed or first in ROMANISED_ORDINARY):
            return True
    if any(word.lower() in _GRAMMAR for word in words):
        return False
    if len(words) == 1:
        lower = words[0].lower()
        return (
            not is_common(words[0])
            or (lower in NAME_WORDS and (signed or words[0][0].isupper()))
            or (lower in EPONYMS and signed)
        )
    common = [is_common(word) for word in words]
    if common[0] and not _looks_common(words[0]):
        return words[0].lower() in NAME_WORDS | EPONYMS and (
            not all(common[1:]) or all(word.lower() in NAME_WORDS | SURNAME_WORDS | EPONYMS for word in words[1:])
        )
    return not any(is_medicine(word) for word in words[1:])


def _looks_common(word: str) -> bool:
    """Tell whether nothing but its ending ("tenzing") made a word look like an ordinary one."""
    lower = word.lower()
    return lower not in _NEVER and lower not in ORDINARY and lower not in ROMANISED_ORDINARY and not is_medicine(lower)


def _is_a_medicine(words: list[str]) -> bool:
    return is_medicine(words[0]) and all(is_medicine(word) or len(word) < 4 for word in words)


def _may_be_called(name: str) -> bool:
    """Tell whether people may be called so: unknown words, or those that people are called by."""
    return all(word in NAME_WORDS or not is_common(word) for word in name.lower().split())


_OF_A_DISEASE: Final = re.compile(
    r"^(?:['’]s\b|\s*:|\s+(?:disease|syndrome|sign|test|score|scale|palsy|criteria|fracture|catheter)\b)", re.IGNORECASE
)


def is_surname_after(given: str, word: str, behind: str) -> bool:
    """Tell whether a word right behind a name belongs to it: "denise johnson on", "Bradley Wood said"."""
    lower = word.lower()
    if _OF_A_DISEASE.match(behind) or word.isupper() != given.isupper() or lower in NOT_NAMES or is_medicine(word):
        return False
    if word[0].isupper() and given[0].isupper():
        if (_ACTS.match(behind) or _STOPS.match(behind)) and lower not in _GRAMMAR:
            return True
        return lower in SURNAME_WORDS | EPONYMS or not (
            is_common(lower) or lower in ORDINARY or lower in NAME_WORDS or lower in _MONTHS
        )
    # A word in lower case that is ordinary goes on with the sentence as often as with the name ("suman still coughs").
    if not (word.islower() and given.islower()) or " " in given or lower in _GRAMMAR:
        return False
    return lower in EPONYMS - ORDINARY or (lower in SURNAME_WORDS | EPONYMS and _NAME_ENDS.match(behind) is not None)


_ACTS: Final = re.compile(rf"\s+{_SPEAKS}\b")
_STOPS: Final = re.compile(r"[,;).]")
_NAME_ENDS: Final = re.compile(
    r"\s*(?:[.,;:!?\n(]|$|(?:on|at|from|here|and|who|has|had|is|was|said|says|told|came|lives)\b)", re.IGNORECASE
)
_MONTHS: Final = frozenset(
    [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ]
)
