"""What the agent says of the weights that `tests.bench.fingerprints` has measured: python -m … FILE.json …"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.manifest import Fingerprint, Probe
from neurons.agent.fingerprint import ROUNDS, Evidence, Opinion, Recorded, judge, rounds
from neurons.agent.places import forced

NOISE: Final = 0.01
"""Nats: what a pool's calibration says of bfloat16."""
FORMATS: Final = ("bf16", "fp8", "int8", "int4")


def fingerprint_of(pair: dict[str, Any]) -> Fingerprint:
    """Return the fingerprint that the trainer would have put into the manifest."""
    taken, at = [], 0
    for tokens, start in pair["sequences"]:
        part = slice(at, at := at + len(tokens) - start)
        parent = pair["recorded"]["parent"]
        taken.append(
            Probe(
                token_ids=tuple(tokens),
                start=start,
                child=tuple(pair["recorded"]["child"][part]),
                parent=tuple(parent[part]) if parent is not None else None,
                base=tuple(pair["recorded"]["base"][part]),
            )
        )
    return Fingerprint(token_ids=(1, 2), logprobs=(0.0,), probes=tuple(taken))


def pairs_of(path: Path) -> list[dict[str, Any]]:
    """Return what was measured, from a file that may be gzipped."""
    data = path.read_bytes()
    pairs: list[dict[str, Any]] = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    return pairs


def decide(pair: dict[str, Any], how: str, who: str) -> tuple[Opinion, int]:
    """Return what the agent would say of these weights, and how many places it asked for."""
    measured = pair["measured"][how]
    places = [place for tokens, start in pair["sequences"] for place in forced(tokens, start=start)]
    loaded, bare = (dict(zip(places, measured[name], strict=True)) for name in (who, "base"))
    parts = rounds(fingerprint_of(pair))
    asked: list[Recorded] = []
    opinion = Opinion.UNSURE
    for part in parts:
        asked += part
        said, plain = [loaded[e.position] for e in asked], [bare[e.position] for e in asked]
        opinion = judge(Evidence(asked, said, plain, noise=NOISE, complete=part is parts[-1]))
        if opinion is not Opinion.UNSURE:
            break
    return opinion, len(asked)


def judged(paths: Sequence[Path]) -> dict[str, Counter[str]]:
    """Print, for each format and each kind of weights, how many pairs the agent took for what."""
    pairs = [pair for path in paths for pair in pairs_of(path)]
    tables: dict[str, Counter[str]] = {}
    for how in FORMATS:
        for who in ("child", "parent", "base", "next", "grandparent", "other", "same source"):
            decided = [decide(pair, how, who) for pair in pairs if who in pair["measured"][how]]
            table = Counter(opinion.value for opinion, _ in decided)
            tables[f"{how}, {who}"] = table
            first, second = (sum(count <= most for _, count in decided) for most in ROUNDS)
            said = ", ".join(f"{count} {opinion}" for opinion, count in table.most_common())
            print(
                f"{how:5} loaded: {who:12} {len(decided):4} pairs: {said}"
                f" ({first} by the first {ROUNDS[0]} places, {second} by {ROUNDS[1]})"
            )
    right = [table for name, table in tables.items() if name.endswith(" child")]
    wrong = [table for name, table in tables.items() if not name.endswith(" child")]
    unproven = sum(table["unsure"] for table in right)
    refused = sum(table.total() - table["child"] for table in right) - unproven
    print(f"right weights: {sum(t.total() for t in right)} pairs, {refused} refused, {unproven} unproven")
    accepted, unproven = sum(table["child"] for table in wrong), sum(table["unsure"] for table in wrong)
    print(f"other weights: {sum(t.total() for t in wrong)} pairs, {accepted} accepted, {unproven} unproven")
    return tables


if __name__ == "__main__":
    judged([Path(each) for each in sys.argv[1:]])
