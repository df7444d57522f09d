"""docs/benchmarks.md, written from the results measured so far."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.plots import draw
from tests.bench.results import ROOT, Figure, Spread

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
WIDTH: Final = 120

_HEAD: Final = """\
# Benchmarks

Written by `make bench BENCH_ARGS=--document` from what was measured; don't edit it. A section stays as it was until its
benchmark is measured again. Each figure is the median of its runs, or of its samples, with the smallest and the largest
beside it; p99 is by nearest rank, so of fewer than 100 samples it is the largest. The targets are the project's own.
What was measured on a GPU names the card.

`make bench` measures all of it again; below each table stands the command for that table alone. Needed are, beside what
`make demo` needs: wrk (`apt-get install wrk`) and the package index for `proxy`, and the demo's cluster (`make demo`)
for `swap`, `heal`, `training` and parts of `swaps_under_load` and `promotion`. These two, `operator` and `nightly`
bring a cluster named `bench` up and take it down again."""

_PEERS_TITLE: Final = "Beside others"
_PEERS_HEAD: Final = (
    f"\n## {_PEERS_TITLE}\n"
    + """
{measured}Not measured: other operators that load adapters into vLLM. The table **quotes their code**; it tells when
they look again, not how fast they are.

| | when it looks for an adapter that is new or missing | read in |
| --- | --- | --- |"""
)

_MEASURED_PEER: Final = "Measured, in one run with the miner: LiteLLM's proxy, above.\n\n"
_PEERS: Final = (
    (
        "AIBrix",
        "on watched changes, and at all adapters again after `DefaultResyncInterval = 10 * time.Second`; "
        "`MaxLoadingRetries = 5`, `RetryBackoffSeconds = 5`",
        "`pkg/controller/modeladapter/modeladapter_controller.go`, commit 0299c517",
    ),
    (
        "vLLM production-stack",
        "on watched changes of adapters and when a pod becomes ready; each pass goes over all adapters and asks for "
        "another one (`Requeue: true`)",
        "`operator/internal/controller/loraadapter_controller.go`, commit 0c2b361f",
    ),
    (
        "this project",
        "on watched changes; the agent beside each engine asks it every 0.5 s, and every 0.3 s while something is "
        "missing",
        "`neurons/agent/monitor.py`",
    ),
)


def write_document(results: Sequence[Mapping[str, Any]], path: Path = DOCUMENT) -> None:
    """Write the page; generated, so never edit it by hand.

    Sections of which there are no results here stay: mostly another machine measured them.
    """
    sections = _sections_of(path)
    for result in results:
        sections[result["title"]] = "\n".join(_section(result)).strip()
    body = [f"\n{text}" for text in sections.values()]
    with_litellm = any("LiteLLM proxy" in text for text in body)
    lines = [
        _HEAD,
        *body,
        _PEERS_HEAD.format(measured=_MEASURED_PEER if with_litellm else ""),
        *(f"| {' | '.join(peer)} |" for peer in _PEERS),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _sections_of(path: Path) -> dict[str, str]:
    """Return the measured sections that the page has, by title, in their order."""
    if not path.is_file():
        return {}
    parts = path.read_text().split("\n## ")[1:]
    found = {part.partition("\n")[0]: f"## {part.strip()}" for part in parts}
    found.pop(_PEERS_TITLE, None)
    return found


def _section(result: Mapping[str, Any]) -> Iterator[str]:
    software = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield f"\n## {result['title']}\n\n{textwrap.fill(result['how'], WIDTH)}\n"
    yield textwrap.fill(f"Measured {result['measured_at']} on {result['machine']}. {software}.", WIDTH) + "\n"
    yield "| | figure | median (min to max); p99 | runs | target |\n| --- | --- | --- | --- | --- |"
    for document in result["figures"]:
        figure = Figure(**{**document, "spread": Spread(**document["spread"])})
        met = {None: "", True: " (met)", False: " (missed)"}[figure.met]
        target = f"{figure.target or ''}{met}"
        cells = (figure.subject, figure.figure, figure.value(), str(figure.spread.runs), target)
        yield f"| {' | '.join(cells)} |"
    if (plot := draw(result)) is not None:
        yield f"\n{plot}"
    for note in result["notes"]:
        yield f"\n{note}"
    if result["command"]:
        yield f"\nAgain: `{result['command']}`"
