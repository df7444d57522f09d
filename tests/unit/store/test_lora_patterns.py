"""The tables of expressions in adapter_config.json: what is taken of them, what fits, and what they may cost."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.store import lora_patterns
from neurons.store.errors import AdapterInvalid
from neurons.store.lora_config import LoraConfig, parse_config
from neurons.store.lora_tensors import check_tensors
from neurons.store.safetensors import Tensor

from .lora_files import PREFIX, config

TABLES = ("rank_pattern", "alpha_pattern")
LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
LARGE = [f"model.layers.{layer}.{name}" for layer in range(126) for name in LINEAR]
"""The linear layers of a model of 405 billion parameters."""


def parsed(**changes: Any) -> LoraConfig:
    return parse_config(json.dumps(config() | changes).encode(), where="it")


def refused(**changes: Any) -> str:
    with pytest.raises(AdapterInvalid) as error:
        parsed(**changes)
    return str(error.value)


def pairs(*modules: str, rank: int = 8) -> list[Tensor]:
    shapes = {"lora_A": (rank, 4), "lora_B": (4, rank)}
    return [
        Tensor(f"{PREFIX}{module}.{side}.weight", "F32", shape, 0, 0)
        for module in modules
        for side, shape in shapes.items()
    ]


@pytest.mark.parametrize("table", TABLES)
def test_more_keys_than_any_model_has_layers_are_refused_in_words(table: str) -> None:
    keys = {f"layers.{number}.q_proj": 8 for number in range(45_000)}
    assert f"{table} has 45000 keys, and at most 1024 are taken" in refused(**{table: keys})
    expressions = {rf"layers\.{number}\.q_proj": 8 for number in range(65)}
    assert f"{table} has 65 keys that are expressions, and at most 64 are taken" in refused(**{table: expressions})
    assert f"{table} has a key of 20000 characters" in refused(**{table: {"q" * 20_000: 8}})


@pytest.mark.parametrize(
    "key",
    ["(a|a)" * 40 + "b", "(?:a|a)" * 40 + "b", "a?" * 40 + "a" * 40, "a??" * 40 + "b", "((a|a)|(a|a))" * 20 + "b",
     "[a]?" * 40 + "b", "(a|a" * 40 + ")" * 40 + "b", "a*a*a*b", "(a*)*b"],
)  # fmt: skip
@pytest.mark.parametrize("table", TABLES)
def test_expressions_that_could_be_tried_for_ever_are_refused(table: str, key: str) -> None:
    assert "too costly an expression" in refused(**{table: {key: 8}})


def test_what_an_adapter_of_a_large_model_says_of_each_layer_is_taken_quickly() -> None:
    ranks = {module: 1 + number % 64 for number, module in enumerate(LARGE)}
    half = "|".join(str(layer) for layer in range(80))
    began = time.thread_time()
    found = parsed(rank_pattern=ranks, alpha_pattern={rf"layers\.({half})\.self_attn\.[a-z]+_proj": 5.0})
    assert [found.rank_of(module) for module in LARGE] == list(ranks.values())
    assert found.scale_of(LARGE[0]) == 5.0
    assert found.scale_of("model.layers.80.self_attn.q_proj") == 16 / ranks["model.layers.80.self_attn.q_proj"]
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("table", TABLES)
def test_what_takes_long_to_try_all_the_same_ends_in_words(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_patterns, "SECONDS", 0.05)
    name = ".".join("a" * 120)
    given = parsed(**{table: {f"[a.]*a[a.]*b{number}": 8 for number in range(60)}})
    began = time.thread_time()
    with pytest.raises(AdapterInvalid, match=rf"it: adapter_config.json: {table} takes more than 0.05 s"):
        check_tensors(pairs(*(f"{name}.{number}" for number in range(5000))), given, where="it", base=None)
    assert time.thread_time() - began < 2


pieces = st.sampled_from(["a", "b", "q_proj", ".", r"\.", "[ab]", "(a|b)", ".*", "b?", "x.a"])
names = st.lists(st.sampled_from(["a", "b", "q_proj", "x", "ab"]), min_size=1, max_size=5).map(".".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(pieces, min_size=1, max_size=4).map("".join), max_size=5, unique=True), names)
def test_the_first_key_that_fits_counts_as_peft_has_it(keys: list[str], module: str) -> None:
    try:
        found = parsed(rank_pattern={key: 100 + place for place, key in enumerate(keys)})
    except AdapterInvalid:
        return
    fits = (100 + place for place, key in enumerate(keys) if re.match(rf"(.*\.)?({key})$", module))
    assert found.rank_of(module) == next(fits, 8)


@pytest.mark.parametrize("rank", [10**400, 70_000])
def test_a_rank_is_a_number_that_can_be_reckoned_with(rank: int) -> None:
    assert "not a whole number from 1 to 65536" in refused(r=rank)
    assert "not a whole number from 1 to 65536" in refused(rank_pattern={"q_proj": rank})


def test_no_nesting_breaks_the_words_of_a_refusal() -> None:
    for depth in range(100, 1200, 7):
        text = json.dumps(config()).replace('"none"', "[" * depth + "]" * depth).encode()
        with pytest.raises(AdapterInvalid):
            parse_config(text, where="it")
