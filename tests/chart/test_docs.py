"""The documentation keeps up: every reason is explained, every link leads somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bettertherapy_api.report import FailureReason

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "charts").glob("*/README.md"))
KINDS = ROOT / "operator" / "twin_operator" / "kinds"
CHECKS = [
    *(KINDS / "doctor_twin" / name for name in ("checks.py", "fine_tunes.py", "rollout.py")),
    *(KINDS / "finetune_run" / name for name in ("checks.py", "plan.py", "queueing.py")),
    *(KINDS / "miner_pool" / name for name in ("checks.py", "routing.py")),
]
CALM = {"NoAdapter", "NoPool", "NoPods", "NoReadyPod", "NotReported", "NotFetched", "Complete", "Retrying", "Off"}
CALM |= {"External", "NotSupported", "DigestMatches", "Verified", "NoRollback"}
CALM |= {"DatasetRead", "TrainingEnded", "InStore", "Ended", "Admitted", "PodStarting", "JobStarting"}
"""Reasons beside which there is nothing to do; their message says all."""


def reasons_in(path: Path) -> set[str]:
    """Return the reasons that checks return or conditions carry: (reason, message) tuples and _condition(...) calls."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            found.add(node.elts[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_condition" and len(node.args) == 4:
            found.add(node.args[2])
        elif isinstance(node, ast.IfExp):
            found.update((node.body, node.orelse))
    texts = {node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"([A-Z][a-z]+){2,}|Serving|Loading|Unschedulable", text)}


def test_reasons_are_read_from_the_code() -> None:
    assert {"NoPoolMatches", "RankTooHigh", "SecretNotFound", "EngineWedged"} <= set().union(*map(reasons_in, CHECKS))


@pytest.mark.parametrize(
    "reason", sorted(set().union(*map(reasons_in, CHECKS)) - CALM | {r.value for r in FailureReason})
)
def test_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
