"""Every example is accepted by a real API server, down to its last field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Kubectl

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def test_examples_are_numbered_without_gaps() -> None:
    assert [path.name[:2] for path in EXAMPLES] == [f"{number:02}" for number in range(1, len(EXAMPLES) + 1)]


@pytest.mark.cluster
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_admitted(example: Path, namespace_once: str, kubectl: Kubectl) -> None:
    # A dry run on the server goes through schema, defaults, CEL rules and admission, and starts no engines.
    # validate=strict refuses fields that the API would drop without a word.
    done = kubectl(
        "apply", "-n", namespace_once, "--server-side", "--dry-run=server", "--validate=strict", "-f", str(example)
    )  # fmt: skip
    assert done.stdout.strip()
    assert "unknown field" not in done.stderr
