"""The header's reader against the library's, over files of every damage."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
import safetensors as library
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.store.errors import AdapterInvalid
from neurons.store.lora_config import parse_config
from neurons.store.lora_tensors import check_tensors
from neurons.store.safetensors import Header, NotSafetensors, parse_header

from .lora_files import config, lora, safetensors

GOOD = safetensors(lora(rank=2), format="pt")
HEADER_END = 8 + struct.unpack("<Q", GOOD[:8])[0]


def read(content: bytes) -> Header | None:
    try:
        return parse_header(io.BytesIO(content), size=len(content))
    except NotSafetensors:
        return None


def library_reads(content: bytes) -> bool:
    try:
        library.deserialize(content)
    except library.SafetensorError:
        return False
    return True


def test_a_good_file_is_read_by_both() -> None:
    assert read(GOOD) is not None
    assert library_reads(GOOD)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "latin-1"])
def test_a_header_is_utf_8_and_nothing_else(encoding: str) -> None:
    text, body = GOOD[8:HEADER_END].decode().replace("pt", "p\u00e4"), GOOD[HEADER_END:]
    header = text.encode(encoding)
    content = struct.pack("<Q", len(header)) + header + body
    assert read(content) is None
    assert not library_reads(content)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    if read(content) is not None:
        assert library_reads(content)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, HEADER_END - 1), st.binary(min_size=1, max_size=4)), max_size=3),
    st.integers(-40, 40),
)
def test_a_damaged_header(changes: list[tuple[int, bytes]], longer: int) -> None:
    content = bytearray(GOOD)
    for at, piece in changes:
        content[at : at + len(piece)] = piece
    damaged = bytes(content[: len(content) + min(longer, 0)]) + bytes(max(longer, 0))
    if read(damaged) is not None:
        assert library_reads(damaged)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
    | st.sampled_from(["F32", "BF16", "I8", [0, 16], [2, 2], [4]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", "C64"]) | values,
        "shape": st.lists(st.integers(0, 4), max_size=3) | values,
        "data_offsets": st.tuples(st.integers(0, 40), st.integers(0, 40)).map(list) | values,
    },
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.text(max_size=8) | st.just("__metadata__"), entries | values, max_size=4), st.integers(0, 48))
def test_a_header_of_any_content(header: dict[str, Any], size: int) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(size)
    found = read(content)
    if found is not None:
        assert library_reads(content)
        plain = parse_config(json.dumps(config()).encode(), where="it")
        with suppress(AdapterInvalid):
            check_tensors(found.tensors, plain, where="it", base=None)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*config(), "rank_pattern", "alpha_pattern", "init_lora_weights", "use_dora"]), values
    )
)
def test_a_configuration_of_any_content(changes: dict[str, Any]) -> None:
    try:
        found = parse_config(json.dumps(config() | changes).encode(), where="it")
    except AdapterInvalid:
        return
    assert found.rank_of("model.layers.0.self_attn.q_proj") > 0


def header_of(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_a_shape_of_many_numbers_is_refused_before_they_are_multiplied() -> None:
    numbers = ",".join([str(2**62)] * 20_000)
    began = time.thread_time()
    content = header_of(f'{{"a":{{"dtype":"F32","shape":[{numbers}],"data_offsets":[0,0]}}}}')
    with pytest.raises(NotSafetensors, match="20000 dimensions"):
        parse_header(io.BytesIO(content), size=len(content))
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("piece", ["[]", "{}", "0", '"a":0', '{"a":0}'])
def test_a_header_of_more_values_than_any_file_has_is_not_parsed(piece: str) -> None:
    several = ",".join([piece] * (1_500_000))
    text = f'{{"a":{{{several}}}}}' if piece.startswith('"') else f'{{"a":[{several}]}}'
    content = header_of(text)
    tracemalloc.start()
    with pytest.raises(NotSafetensors, match="values"):
        parse_header(io.BytesIO(content), size=len(content))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * len(content)


def test_a_mixture_of_experts_is_read() -> None:
    entries = ",".join(
        f'"base_model.model.model.layers.{n // 768}.mlp.experts.{n % 768}.gate_proj.lora_A.weight":'
        '{"dtype":"BF16","shape":[0,4096],"data_offsets":[0,0]}'
        for n in range(46_000)
    )  # fmt: skip
    content = header_of(f"{{{entries}}}")
    assert len(parse_header(io.BytesIO(content), size=len(content)).tensors) == 46_000
