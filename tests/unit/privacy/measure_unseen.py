"""Print how much of the identifiers in `sets/unseen.txt` de-identification takes out, per language and class,
and how many lines of `sets/clinic_unseen.txt`, which hold nothing to remove, lose a word.

A token of a marked identifier counts as found when the scrubbed message has fewer of it than the message; an unmarked
one that has gone counts as taken by mistake. Run: python -m tests.unit.privacy.measure_unseen
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from neurons.privacy import Deidentifier

_SET: Final = Path(__file__).parent / "sets" / "unseen.txt"
_CLINIC: Final = Path(__file__).parent / "sets" / "clinic_unseen.txt"
_MARK: Final = re.compile(r"\[(NAME|PLACE|DATE|NUMBER):([^\]]+)\]")
_TOKEN: Final = re.compile(r"[\w\u0900-\u097f]+")


def main() -> None:
    """Print a line per language and class: tokens found of all, and what is left of the others."""
    scrubber = Deidentifier.load()
    found: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for line in _SET.read_text(encoding="utf-8").splitlines():
        language, marked = line.split("|", 1)
        left = Counter(_TOKEN.findall(scrubber.scrub(_MARK.sub(r"\2", marked)).text))
        others = Counter(_TOKEN.findall(_MARK.sub(" ", marked)))
        identifiers = [(kind, token) for kind, text in _MARK.findall(marked) for token in _TOKEN.findall(text)]
        for token, many in others.items():
            total[language, "unmarked, kept"] += many
            found[language, "unmarked, kept"] += min(many, left[token])
        left -= others
        for kind, token in identifiers:
            total[language, kind] += 1
            if left[token] > 0:
                left[token] -= 1
            else:
                found[language, kind] += 1
    for key in sorted(total):
        sys.stdout.write(f"{' '.join(key)} {found[key]}/{total[key]} {100 * found[key] / total[key]:.1f}%\n")
    lines = _CLINIC.read_text(encoding="utf-8").splitlines()
    lost = sum(scrubber.scrub(line).text != line for line in lines)
    sys.stdout.write(f"clinic lines that lose a word {lost}/{len(lines)} {100 * lost / len(lines):.1f}%\n")


if __name__ == "__main__":
    main()
