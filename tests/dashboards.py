"""What the dashboards ask, and which panels have no data: `python -m tests.dashboards --prometheus URL`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "charts" / "twin-operator" / "files" / "dashboards"


@dataclass(frozen=True)
class Query:
    """One query of a panel, with everything chosen that can be."""

    board: str
    panel: str
    expr: str


def queries() -> Iterator[Query]:
    """Yield all queries of all dashboards."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield Query(path.stem, panel["title"], chosen(target["expr"]))


def chosen(expr: str) -> str:
    """Return a query as Grafana sends it when all values are chosen."""
    return re.sub(r"\$(?!__)\w+", ".*", expr.replace("$__rate_interval", "5m"))


def answered(prometheus: str, expr: str) -> int:
    """Return how many series a query has; a figure that is none counts as none."""
    body = urllib.parse.urlencode({"query": expr}).encode()
    with urllib.request.urlopen(f"{prometheus.rstrip('/')}/api/v1/query", body, timeout=30) as response:
        found = json.load(response)["data"]["result"]
    return sum(each["value"][1] != "NaN" for each in found)


def without_data(prometheus: str) -> list[Query]:
    """Return the queries that have no series there."""
    return [query for query in queries() if not answered(prometheus, query.expr)]


def main() -> int:
    """Name the panels without data; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    empty = without_data(parser.parse_args().prometheus)
    for query in empty:
        sys.stdout.write(f"{query.board}: {query.panel} has no data: {query.expr}\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
