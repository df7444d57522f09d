"""Every kind of adapter that people have, beside what the pinned vLLM says to it."""

from __future__ import annotations

import itertools
import json
import math
import random
import struct
import time
from pathlib import Path

import pytest

from neurons.store import AdapterInvalid, WeightsNotFinite, check_adapter
from neurons.store.finite import LARGEST
from neurons.store.lora_tensors import BaseModules

from .adapter_kinds import KINDS, UNSLOTH, VERDICTS
from .lora_files import DOWN, FORMATS, PREFIX, Q, encode, lora, safetensors, tensor, write_lora

BASE = BaseModules({Q: (64, 64), DOWN: (64, 128), "model.embed_tokens": (100, 64)}, vocabulary=100)
WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_taken_or_refused_in_words(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    folder = kind.write(tmp_path / "adapter")
    if kind.says is None:
        check_adapter(folder)
        return
    with pytest.raises(AdapterInvalid) as caught:
        check_adapter(folder)
    assert kind.says in str(caught.value)
    assert caught.value.retryable is False


@pytest.mark.parametrize("name", KINDS)
def test_what_is_refused_is_what_vllm_refuses_or_would_serve_otherwise(name: str) -> None:
    kind, verdict = KINDS[name], json.loads(VERDICTS.read_text())["verdicts"][name]
    assert (verdict is not None) == (kind.says is not None and not kind.otherwise)


def test_all_that_stands_against_an_adapter_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match=r"bias.*DoRA.*layer_replication"):
        check_adapter(write_lora(tmp_path / "a", bias="all", use_dora=True, layer_replication=[[0, 1]]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"\n <html>Just a moment...</html>", "a web page"),
        (b'{"error": "not found"}', "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "a PyTorch file"),
        (b"\x80\x02" + bytes(100), "a pickle"),
        (b"GGUF" + bytes(100), "a GGUF file"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (bytes(5), "no safetensors file"),
        (bytes(1000), "no safetensors file"),
        (safetensors(lora())[:100], "cut off"),
        (safetensors(lora())[:-1], "cut off"),
        (safetensors(lora()) + b"\0", "damaged"),
        (struct.pack("<Q", 2**62) + b"{}", "no safetensors file"),
        (struct.pack("<Q", 6) + b'{"a":}', "can't be read"),
        (struct.pack("<Q", 100_000) + b"{" + b'"a":[' * 20_000 + bytes(100_000), "can't be read"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_weights_is_called_what_it_is(content: bytes, says: str, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "a")
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(AdapterInvalid, match=says):
        check_adapter(folder)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[1]", b"null", b"{" * 100_000, b'{"peft_type": "LORA"}', b"\xff\xfe"]
)
def test_a_configuration_that_is_none(content: bytes, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(AdapterInvalid, match="adapter_config"):
        check_adapter(folder)


@pytest.mark.parametrize("key", ["(a+)+b", "(a|aa)*b", r"(?=a)b", r"(a)\1", ".*.*.*x", "x" * 301 + "+"])
def test_no_expression_from_a_store_keeps_the_agent_busy(key: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match="costly"):
        check_adapter(write_lora(tmp_path / "a", rank_pattern={key: 8}))


def test_weights_that_were_not_gathered_before_saving(tmp_path: Path) -> None:
    """What DeepSpeed's ZeRO-3 leaves without being asked to gather: the names, and nothing in them."""
    entries = {name: (dtype, (0,), b"") for name, (dtype, _, _) in lora().items()}
    with pytest.raises(AdapterInvalid, match="is empty, as what is saved while the weights lie in parts"):
        check_adapter(write_lora(tmp_path / "a", entries))


# --- finite


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *itertools.product(("F64", "F32", "F16", "BF16", "F8_E5M2"), (math.nan, math.inf, -math.inf)),
        ("F8_E4M3", math.nan),  # it has no infinity
    ],
)
def test_a_weight_that_is_not_finite_is_found_in_every_format(dtype: str, value: float, tmp_path: Path) -> None:
    entries = lora(dtype=dtype)
    name = f"{PREFIX}{DOWN}.lora_B.weight"
    kind, shape, data = entries[name]
    size = len(data) // math.prod(shape)
    at = random.Random(math.isnan(value)).randrange(math.prod(shape)) * size
    entries[name] = kind, shape, data[:at] + encode(dtype, [value]) + data[at + size :]
    with pytest.raises(
        WeightsNotFinite, match=rf"{DOWN}.lora_B.weight holds -?(nan|inf) at place {at // size}, "
    ) as caught:
        check_adapter(write_lora(tmp_path / "a", entries))
    assert caught.value.retryable is False


@pytest.mark.parametrize("dtype", [*FORMATS, "BF16", "F8_E5M2", "F8_E4M3"])
def test_usual_weights_are_finite_in_every_format(dtype: str, tmp_path: Path) -> None:
    check_adapter(write_lora(tmp_path / "a", lora(dtype=dtype)))


@pytest.mark.parametrize(("dtype", "value"), [("F32", 3e38), ("BF16", -1e30), ("F64", 1e300), ("F32", LARGEST)])
def test_a_weight_that_no_training_makes_is_refused(dtype: str, value: float, tmp_path: Path) -> None:
    entries = lora(dtype=dtype)
    name = f"{PREFIX}{Q}.lora_A.weight"
    kind, shape, data = entries[name]
    one = encode(dtype, [value])
    entries[name] = kind, shape, one + data[len(one) :]
    with pytest.raises(WeightsNotFinite, match="beyond"):
        check_adapter(write_lora(tmp_path / "a", entries))


def test_the_largest_that_is_taken_is_just_below_the_limit(tmp_path: Path) -> None:
    entries = lora()
    name = f"{PREFIX}{Q}.lora_A.weight"
    kind, shape, data = entries[name]
    entries[name] = kind, shape, encode("F32", [131_071.9, -131_071.9]) + data[8:]
    check_adapter(write_lora(tmp_path / "a", entries))


def test_thirty_megabytes_are_checked_in_well_under_a_second(tmp_path: Path) -> None:
    block = encode("BF16", [0.01, -0.02] * 512)
    layers = {f"model.layers.{i}.mlp.up_proj": (1024, 1024) for i in range(58)}
    entries = {}
    for module, (out, inner) in layers.items():
        entries[f"{PREFIX}{module}.lora_A.weight"] = ("BF16", (128, inner), block * 128)
        entries[f"{PREFIX}{module}.lora_B.weight"] = ("BF16", (out, 128), block * 128)
    folder = write_lora(tmp_path / "a", entries, rank=128)
    assert (folder / WEIGHTS).stat().st_size > 30_000_000
    begun = time.process_time()
    check_adapter(folder)
    assert time.process_time() - begun < 0.5


# --- against the base model


def test_an_adapter_for_the_base_model_is_taken(tmp_path: Path) -> None:
    check_adapter(write_lora(tmp_path / "a"), base=BASE)


def test_an_adapter_of_a_wider_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match="64 x 256 in the adapter and 64 x 128 in the base model"):
        check_adapter(write_lora(tmp_path / "a", lora({DOWN: (64, 256)})), base=BASE)


@pytest.mark.parametrize(
    "prefix", ["base_model.model.llm.", "base_model.model.model.", "policy.", "base_model.model.language_model."]
)
def test_tensors_under_a_wrappers_names_are_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match=rf"no module .*\(it has {Q}\)"):
        check_adapter(write_lora(tmp_path / "a", lora(prefix=prefix)), base=BASE)


def test_a_layer_that_the_base_model_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match=r"no module model\.layers\.7"):
        check_adapter(write_lora(tmp_path / "a", lora({"model.layers.7.self_attn.q_proj": (64, 64)})), base=BASE)


def test_embeddings_with_new_tokens_are_refused(tmp_path: Path) -> None:
    kept = {f"{PREFIX}model.embed_tokens.base_layer.weight": tensor((101, 64))}
    with pytest.raises(AdapterInvalid, match="new tokens"):
        check_adapter(write_lora(tmp_path / "a", lora() | kept), base=BASE)


def test_a_linear_layer_that_lies_the_other_way_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterInvalid, match="128 x 64 in the adapter and 64 x 128 in the base model"):
        check_adapter(write_lora(tmp_path / "a", lora({DOWN: (128, 64)})), base=BASE)


def test_embeddings_lie_the_other_way_round(tmp_path: Path) -> None:
    check_adapter(KINDS["embeddings trained by LoRA"].write(tmp_path / "a"), base=BASE)
    upright = {
        "base_model.model.model.embed_tokens.lora_embedding_A": tensor((8, 64)),
        "base_model.model.model.embed_tokens.lora_embedding_B": tensor((100, 8)),
    }
    with pytest.raises(AdapterInvalid, match="embed_tokens is 100 x 64"):
        check_adapter(write_lora(tmp_path / "b", lora() | upright), base=BASE)


def test_a_tied_output_layer_has_the_embeddings_size(tmp_path: Path) -> None:
    check_adapter(KINDS["output layer trained by LoRA"].write(tmp_path / "a"), base=BASE)
    with pytest.raises(AdapterInvalid, match="lm_head is 99 x 64"):
        check_adapter(write_lora(tmp_path / "b", lora({"lm_head": (99, 64)})), base=BASE)


def test_a_model_that_sees_may_name_its_parts_otherwise(tmp_path: Path) -> None:
    base = BaseModules({f"language_model.{Q}": (64, 64)}, has_parts=True)
    check_adapter(
        write_lora(tmp_path / "a", lora({"model.language_model.layers.0.self_attn.q_proj": (64, 64)})), base=base
    )
    with pytest.raises(AdapterInvalid, match="no module"):
        check_adapter(write_lora(tmp_path / "b", lora({"model.layers.9.self_attn.q_proj": (64, 64)})), base=base)


def test_where_a_checkpoint_may_name_everything_otherwise_only_known_modules_are_compared(tmp_path: Path) -> None:
    base = BaseModules({"layers.0.attention.wq": (64, 64)}, other_names=True)
    check_adapter(write_lora(tmp_path / "a", lora({Q: (32, 32)})), base=base)
    base = BaseModules({Q: (64, 64)}, other_names=True)
    with pytest.raises(AdapterInvalid, match="32 x 32 in the adapter"):
        check_adapter(write_lora(tmp_path / "b", lora({Q: (32, 32)})), base=base)
    with pytest.raises(AdapterInvalid, match="no module"):
        check_adapter(write_lora(tmp_path / "c", lora({Q: (64, 64), "model.layers.9.x": (8, 8)})), base=base)


def test_a_checkpoint_of_the_bare_model_lacks_its_prefix(tmp_path: Path) -> None:
    base = BaseModules({"h.0.attn.c_attn": (64, 192)})
    check_adapter(write_lora(tmp_path / "a", lora({"transformer.h.0.attn.c_attn": (192, 64)})), base=base)
    with pytest.raises(AdapterInvalid, match="128 x 64 in the adapter"):
        check_adapter(write_lora(tmp_path / "b", lora({"transformer.h.0.attn.c_attn": (128, 64)})), base=base)


def test_the_rank_is_the_highest_of_all(tmp_path: Path) -> None:
    folder = write_lora(
        tmp_path / "a", rank_pattern={"up_proj": 32}, **{k: v for k, v in UNSLOTH.items() if k != "rank_pattern"}
    )
    assert check_adapter(folder).highest_rank == 32
