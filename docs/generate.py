"""Makes the tables of reasons in operations.md, metrics.md, the runbooks' heads and list: `docs/generate.py [--check]`.

The sentences are those of twin_operator.domain.reasons, the places those of twin_operator.domain.appearances; series
and alerts are those of bettertherapy_api.metrics. With --check nothing is written, and files that differ are named.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bettertherapy_api.metrics.alerts import ALERTS, Alert
from bettertherapy_api.metrics.contract import ALL, LABELS, TARGET_LABELS
from bettertherapy_api.metrics.series import Process
from twin_operator.domain.appearances import TABLES, Table
from twin_operator.domain.reasons import Reason

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "operations.md"
METRICS = DOCS / "metrics.md"
RUNBOOKS = DOCS / "runbooks"
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


def between(text: str, begins: str, ends: str, made: str, *, of: str) -> str:
    """Return the page with what was made between its markers; raises LookupError where they are missing."""
    pattern = re.escape(begins) + r"\n.*?" + re.escape(ends)
    text, found = re.subn(pattern, lambda _: f"{begins}\n{made}\n{ends}", text, flags=re.DOTALL)
    if found != 1:
        raise LookupError(f"{of} must hold `{begins}` and `{ends}` once, not {found} times")
    return text


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    cells = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)


def series_table(process: Process) -> str:
    """Return the table of what one process exposes."""
    return markdown(
        ["series", "type", "labels", "unit", "what it is", "read by"],
        [
            [
                f"`{series.name}`", str(series.kind), ", ".join(f"`{label}`" for label in series.labels), series.unit,
                series.help, ", ".join(series.read_by),
            ]
            for series in ALL
            if series.of is process
        ],
    )  # fmt: skip


def metrics_page() -> str:
    """Return docs/metrics.md."""
    text = METRICS.read_text()
    for process in Process:
        begins = f"<!-- series of {process}: made by docs/generate.py -->"
        text = between(text, begins, "<!-- end of series -->", series_table(process), of=METRICS.name)
    rows = [[f"`{label}`", what] for label, what in sorted(LABELS.items())]
    text = between(text, "<!-- labels: made by docs/generate.py -->", "<!-- end of labels -->",
                   markdown(["label", "what stands in it, and its bound"], rows), of=METRICS.name)  # fmt: skip
    rows = [[f"`{label}`", what] for label, what in TARGET_LABELS.items()]
    text = between(text, "<!-- target labels: made by docs/generate.py -->", "<!-- end of target labels -->",
                   markdown(["label", "what it is"], rows), of=METRICS.name)  # fmt: skip
    rows = [[f"[{alert.name}](runbooks/{alert.name}.md)", str(alert.severity), alert.summary] for alert in ALERTS]
    return between(text, "<!-- alerts: made by docs/generate.py -->", "<!-- end of alerts -->",
                   markdown(["alert", "severity", "what it says"], rows), of=METRICS.name)  # fmt: skip


def runbook(alert: Alert) -> str:
    """Return an alert's runbook with its rule."""
    path = RUNBOOKS / f"{alert.name}.md"
    wait = f"for {alert.seconds // 60} minutes" if alert.seconds else "at once"
    made = f"Severity **{alert.severity}**; fires {wait} while\n\n```promql\n{alert.expr}\n```"
    return between(path.read_text(), "<!-- rule: made by docs/generate.py -->", "<!-- end of rule -->", made,
                   of=path.name)  # fmt: skip


def runbooks_page() -> str:
    """Return the list of runbooks."""
    path = RUNBOOKS / "README.md"
    made = "\n".join(f"- [{alert.name}]({alert.name}.md): {alert.summary}" for alert in ALERTS)
    return between(path.read_text(), "<!-- alerts: made by docs/generate.py -->", "<!-- end of alerts -->", made,
                   of=path.name)  # fmt: skip


def pages() -> dict[Path, str]:
    """Return path and text of every page with something generated."""
    return {
        PAGE: page(PAGE.read_text()), METRICS: metrics_page(), RUNBOOKS / "README.md": runbooks_page(),
        **{RUNBOOKS / f"{alert.name}.md": runbook(alert) for alert in ALERTS},
    }  # fmt: skip


def main(argv: list[str]) -> int:
    """Write the pages, or with --check name those that differ and return 1."""
    stale = {path: text for path, text in pages().items() if path.read_text() != text}
    for path, text in stale.items():
        name = path.relative_to(DOCS.parent)
        if "--check" in argv:
            sys.stderr.write(f"{name} is not what the code says: run `make generate` and commit it\n")
        else:
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
