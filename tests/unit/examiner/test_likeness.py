"""How alike updates are: of the products, whatever factors they are written in, and without those of the parent."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from neurons.examiner.copies import NEAR
from neurons.examiner.likeness import Adapter, Likeness, compare
from neurons.store import AdapterInvalid
from tests.unit.store.lora_files import PREFIX, Entries, write_lora

RANK = 8
SIZES = {"model.layers.0.self_attn.q_proj": (64, 48), "model.layers.1.mlp.down_proj": (64, 9000)}
Matrix = npt.NDArray[np.float64]
Factors = dict[str, tuple[Matrix, Matrix]]
"""By module: A (r, in) and B (out, r)."""


def drawn(seed: int, *, size: float = 0.05, rank: int = RANK, sizes: Mapping[str, tuple[int, int]] = SIZES) -> Factors:
    draw = np.random.default_rng(seed)
    return {
        name: (draw.normal(0, size, (rank, inner)), draw.normal(0, size, (out, rank)))
        for name, (out, inner) in sizes.items()
    }


def changed(factors: Factors, *, by: float, seed: int) -> Factors:
    """Return factors with noise of so much of their size."""
    draw = np.random.default_rng(seed)
    return {
        name: (a + draw.normal(0, by * a.std(), a.shape), b + draw.normal(0, by * b.std(), b.shape))
        for name, (a, b) in factors.items()
    }


def stored(values: Matrix, dtype: str) -> tuple[str, tuple[int, ...], bytes]:
    single = values.astype("<f4")
    data = {
        "F64": values.astype("<f8").tobytes, "F32": single.tobytes, "F16": values.astype("<f2").tobytes,
        "BF16": (single.view("<u4") >> 16).astype("<u2").tobytes,
        "F8_E5M2": (values.astype("<f2").view("<u2") >> 8).astype("u1").tobytes,
    }[dtype]  # fmt: skip
    return dtype, values.shape, data()


def written(folder: Path, factors: Factors, *, dtype: str = "F32", prefix: str = PREFIX, **config: object) -> Adapter:
    entries: Entries = {}
    for name, (a, b) in factors.items():
        entries[f"{prefix}{name}.lora_A.weight"] = stored(a, dtype)
        entries[f"{prefix}{name}.lora_B.weight"] = stored(b, dtype)
    rank = next(iter(factors.values()))[0].shape[0]
    return Adapter(write_lora(folder, entries, rank=rank, **config))


def by_hand(one: Factors, other: Factors, parent: Factors | None, *, scale: float = 2.0) -> Likeness:
    """The same with whole matrices."""
    cosines, dot, first, second = [], 0.0, 0.0, 0.0
    for name, (a, b) in one.items():
        base = parent[name][1] @ parent[name][0] * scale if parent is not None else 0.0
        left, right = b @ a * scale - base, other[name][1] @ other[name][0] * scale - base
        product, squares = float((left * right).sum()), (float((left**2).sum()), float((right**2).sum()))
        cosines.append(product / np.sqrt(squares[0] * squares[1]))
        dot, first, second = dot + product, first + squares[0], second + squares[1]
    return Likeness(dot / np.sqrt(first * second), float(np.median(cosines)), len(cosines))


@pytest.mark.parametrize("with_parent", [False, True])
def test_it_is_what_whole_matrices_give(tmp_path: Path, with_parent: bool) -> None:
    parent = drawn(1)
    one, other = changed(parent, by=0.1, seed=2), changed(parent, by=0.1, seed=3)
    found = compare(
        written(tmp_path / "1", one, dtype="F64"), written(tmp_path / "2", other, dtype="F64"),
        written(tmp_path / "p", parent, dtype="F64") if with_parent else None,
    )  # fmt: skip
    expected = by_hand(one, other, parent if with_parent else None)
    assert found.modules == 2
    assert (found.whole, found.median) == pytest.approx((expected.whole, expected.median), abs=1e-9)
    # What both began from would hide that they have nothing of each other.
    assert (found.whole > 0.9) is not with_parent


def turned(seed: int) -> Matrix:
    """A rotation of the ranks."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(RANK, RANK)))[0]


@pytest.mark.parametrize("disguise", ["permuted", "rotated", "rescaled", "padded", "bf16", "f16", "named", "noise"])
def test_the_same_training_in_disguise_is_known(tmp_path: Path, disguise: str) -> None:
    parent = drawn(1)
    mine = changed(parent, by=0.3, seed=2)
    config: dict[str, object] = {}
    how: dict[str, str] = {}
    copy: Factors = dict(mine)
    if disguise == "permuted":
        order = np.random.default_rng(1).permutation(RANK)
        copy = {name: (a[order], b[:, order]) for name, (a, b) in mine.items()}
    elif disguise == "rotated":
        copy = {name: (turned(3).T @ a, b @ turned(3)) for name, (a, b) in mine.items()}
    elif disguise == "rescaled":
        copy = {name: (a * 64, b / 16) for name, (a, b) in mine.items()}
        config = {"lora_alpha": 2 * RANK / 4}
    elif disguise == "padded":
        copy = {name: (np.concatenate([a, 0 * a]), np.concatenate([b, b], axis=1)) for name, (a, b) in mine.items()}
    elif disguise in ("bf16", "f16"):
        how = {"dtype": disguise.upper()}
    elif disguise == "named":
        how = {"prefix": ""}
    else:
        copy = {
            name: (a + 0.005 * (noisy_a - a), b + 0.005 * (noisy_b - b))
            for (name, (a, b)), (noisy_a, noisy_b) in zip(mine.items(), drawn(9).values(), strict=True)
        }
    one, other = written(tmp_path / "1", mine), written(tmp_path / "2", copy, **how, **config)  # type: ignore[arg-type]
    found = compare(one, other, written(tmp_path / "p", parent))
    assert found.highest > NEAR, found


def test_two_trainings_that_have_only_their_parent_in_common_are_not_alike(tmp_path: Path) -> None:
    parent = drawn(1)
    one, other = (changed(parent, by=0.3, seed=seed) for seed in (2, 3))
    adapters = written(tmp_path / "1", one), written(tmp_path / "2", other), written(tmp_path / "p", parent)
    assert abs(compare(*adapters).highest) < 0.1


def test_who_spoils_a_few_modules_is_known_by_the_others(tmp_path: Path) -> None:
    sizes = {f"model.layers.{number}.self_attn.q_proj": (32, 32) for number in range(5)}
    mine = drawn(1, sizes=sizes)
    copy = dict(mine)
    for name in list(sizes)[:2]:
        copy[name] = tuple(10 * each for each in drawn(2, sizes=sizes)[name])  # type: ignore[assignment]
    found = compare(written(tmp_path / "1", mine), written(tmp_path / "2", copy), None)
    assert found.whole < 0.5
    assert found.highest > 0.999


def test_what_was_not_changed_says_nothing_and_what_one_changed_alone_is_unlike(tmp_path: Path) -> None:
    parent = drawn(1)
    names = list(SIZES)
    one, other = dict(parent), dict(parent)
    one[names[0]] = drawn(2)[names[0]]
    p = written(tmp_path / "p", parent)
    first, second = written(tmp_path / "1", one), written(tmp_path / "2", other)
    assert compare(second, second, p) == Likeness(0.0, 0.0, 0)
    assert compare(first, second, p) == Likeness(0.0, 0.0, 1)
    assert compare(first, first, p).whole == pytest.approx(1)
    lacking = {names[0]: one[names[0]]}
    assert compare(first, written(tmp_path / "3", lacking), None).modules == 2


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E5M2"])
def test_what_both_left_as_it_was_makes_no_two_trainings_alike(tmp_path: Path, dtype: str) -> None:
    sizes = {f"model.layers.{number}.self_attn.q_proj": (64, 48 + number) for number in range(9)}
    parent = drawn(1, sizes=sizes)
    trained = "model.layers.0.self_attn.q_proj"
    first, second = (
        written(tmp_path / str(seed), parent | {trained: changed(parent, by=2, seed=seed)[trained]}, dtype=dtype)
        for seed in (2, 3)
    )
    found = compare(first, second, written(tmp_path / "p", parent))
    assert found.highest < 0.5, found
    assert compare(first, first, written(tmp_path / "p", parent)).highest == pytest.approx(1)


def test_modules_of_other_sizes_have_nothing_in_common(tmp_path: Path) -> None:
    small = drawn(1, sizes=dict.fromkeys(SIZES, (16, 16)))
    found = compare(written(tmp_path / "1", drawn(1)), written(tmp_path / "2", small), None)
    assert (found.whole, found.median) == (0.0, 0.0)


def test_small_floats_are_read_as_they_are_meant(tmp_path: Path) -> None:
    mine = drawn(1, size=1.0)
    found = compare(written(tmp_path / "1", mine), written(tmp_path / "2", mine, dtype="F8_E5M2"), None)
    assert 0.9 < found.whole < 1


def test_a_broken_adapter_is_told(tmp_path: Path) -> None:
    written(tmp_path / "1", drawn(1))
    (tmp_path / "1" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(AdapterInvalid):
        Adapter(tmp_path / "1")


def test_a_wide_module_takes_no_more_memory_than_a_block_of_it(tmp_path: Path) -> None:
    sizes = {"model.layers.0.mlp.down_proj": (64, 400_000)}
    one, other = (written(tmp_path / str(seed), drawn(seed, sizes=sizes)) for seed in (1, 2))
    tracemalloc.start()
    compare(one, other, None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 2**20, most
