"""What people read of this project, and the commands that it has them type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PAGES = (
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cli" / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "decisions"),
    *sorted((ROOT / "charts").glob("*/README.md")), *sorted((ROOT / "charts").glob("*/templates/NOTES.txt")),
    *sorted((ROOT / "charts").glob("*/values*.yaml")), *sorted((ROOT / "examples").rglob("*.yaml")),
    ROOT / "examples" / "README.md",
)  # fmt: skip
"""All but decisions, which tell of the day on which they were taken."""


def named(page: Path) -> str:
    """Return how a test names a page."""
    return str(page.relative_to(ROOT))


def spans() -> Iterator[tuple[str, str]]:
    """Yield page and text of what stands in code letters, or in a manifest's comments."""
    for page in PAGES:
        text = page.read_text()
        found = re.findall(r"`([^`\n]+)`", text) if page.suffix == ".md" else re.findall(r"#(.*)", text)
        yield from ((named(page), each) for each in found)


def typed(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield page and match of what people are to type; a line that goes on in the next one is one."""
    for page in PAGES:
        for found in re.finditer(pattern, page.read_text().replace("\\\n", " ")):
            yield named(page), found
