"""Makes the tables of reasons in operations.md: `python docs/generate.py [--check]`.

The sentences are those of twin_operator.domain.reasons, the places those of twin_operator.domain.appearances. With
--check nothing is written, and a file that differs is named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from twin_operator.domain.appearances import TABLES, Table
from twin_operator.domain.reasons import Reason

PAGE = Path(__file__).resolve().parent / "operations.md"
END = "<!-- end of reasons -->"


def begin(name: str) -> str:
    """Return the marker before the table of this name."""
    return f"<!-- reasons of {name}: made by docs/generate.py -->"


def given_as(given: Table, reason: Reason) -> Reason | str:
    """Return the reason, or where it is explained if that is another table."""
    return next((text for text, reasons in given.told_elsewhere.items() if reason in reasons), reason)


def table(given: Table) -> str:
    """Return the Markdown table: one row for each reason, in the order in which the places name them."""
    where: dict[Reason | str, list[str]] = {}
    for place in given.places:
        for reason in place.reasons:
            places = where.setdefault(given_as(given, reason), [])
            if place.where not in places:
                places.append(place.where)
    again = ["tried again"] if given.again else []
    head = ["reason", "where", "what it means", "what to do", *again]
    rows = [
        [f"`{reason.value}`", ", ".join(places), reason.meaning, reason.remedy, *([reason.again] if again else [])]
        if isinstance(reason, Reason)
        else ["", ", ".join(places), reason, "", *([""] if again else [])]
        for reason, places in where.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def page(text: str) -> str:
    """Return the page with all tables as they should be; raises LookupError where a table's markers are missing."""
    for given in TABLES:
        pattern = re.escape(begin(given.name)) + r"\n.*?" + re.escape(END)
        made = f"{begin(given.name)}\n{table(given)}\n{END}"
        text, found = re.subn(pattern, lambda _, made=made: made, text, flags=re.DOTALL)
        if found != 1:
            raise LookupError(f"{PAGE.name} must hold `{begin(given.name)}` and `{END}` once, not {found} times")
    return text


def main(argv: list[str]) -> int:
    """Write the page, or with --check say whether it differs and return 1."""
    now = PAGE.read_text()
    wanted = page(now)
    if now == wanted:
        return 0
    if "--check" in argv:
        sys.stderr.write("docs/operations.md is not what the reasons say: run `make generate` and commit it\n")
        return 1
    PAGE.write_text(wanted)
    sys.stdout.write("wrote docs/operations.md\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
