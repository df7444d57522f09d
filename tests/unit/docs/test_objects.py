"""Pages that list what is made for a pool and for a validator list all of it, and say which containers hold a token."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.operator.children import pods
from tests.unit.operator.samples import pool
from tests.unit.operator.validator import validators
from twin_operator.kinds.miner_pool.access_secret import ACCESS, POOL_TOKENS


def table(page: str, above: str) -> str:
    """Return the rows of the first table below a heading."""
    text = (ROOT / "docs" / page).read_text().partition(above)[2]
    return "\n".join(line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| "))


def kinds_and_names(rows: str) -> set[tuple[str, str]]:
    """Return the kinds and names that a row's first cell has: `Deployment, Service `P-miner``."""
    found = set()
    for row in rows.splitlines():
        cell = row.split("|")[1]
        for kinds, names in re.findall(r"((?:[A-Z][A-Za-z]+s?(?:, | and )?)+)((?: ?`[^`]+`,?)*)", cell):
            for kind in re.findall(r"[A-Z][A-Za-z]+", kinds):
                found |= {(kind.removesuffix("s"), name) for name in re.findall(r"`([^`]+)`", names) or [""]}
    return found


def told(kind: str, name: str, listed: set[tuple[str, str]]) -> bool:
    """Whether a kind is listed with this name, or without one."""
    plural = {"NetworkPolicy": "NetworkPolicie"}.get(kind, kind)
    return any(
        each in (kind, plural) and (not known or re.fullmatch(re.escape(known).replace("…", ".*"), name))
        for each, known in listed
    )


def made_for_validators() -> set[tuple[str, str]]:
    found = {key for spec in validators.VARIANTS for key in validators.children(**spec)}
    return {(kind, re.sub(r"^v\b", "V", name)) for kind, name in found}


def made_for_pools() -> set[tuple[str, str]]:
    found = {key for spec in pods.VARIANTS for key in pods.children(**spec)}
    secrets = {("Secret", need.name_of(pool())) for need in (ACCESS, POOL_TOKENS)}
    return {(kind, re.sub(r"^p\b", "P", name)) for kind, name in found | secrets}


@pytest.mark.parametrize(
    ("page", "above", "made"),
    [
        ("gateway.md", "## On Kubernetes", made_for_validators),
        ("architecture.md", "## What runs for a pool P", made_for_pools),
    ],
)
def test_what_is_made_is_listed(page: str, above: str, made: Any) -> None:
    listed = kinds_and_names(table(page, above))
    assert len(listed) > 6
    assert {f"{kind} {name}" for kind, name in made() if not told(kind, name, listed)} == set()
