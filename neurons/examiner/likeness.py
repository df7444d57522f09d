"""How alike the updates of two adapters are: the cosine of what each adds to its parent, module by module.

A LoRA adapter adds s·B·A to a module's weights. Which A and B say it is of no account: rank by rank they may be
permuted, rotated, scaled against each other, padded or stored in other digits, and the product is the same. So products
are compared, less those of the version that both began from, which two trainings have in common without having
anything of each other.

No product is ever made: ⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ), two matrices of r by r'. Factors are read from the
files as they are needed, in blocks: a module takes as much memory as a block of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from neurons.store import AdapterInvalid
from neurons.store.checks import WEIGHTS_FILE
from neurons.store.lora_config import CONFIG_FILE, LoraConfig, parse_config
from neurons.store.lora_tensors import pairs_of
from neurons.store.safetensors import NotSafetensors, Tensor, read_header

_BLOCK: Final = 4096
"""Rows of a factor that are read at once."""
_STORED: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E5M2": "u1", "F8_E4M3": "u1"}
_ROUNDED: Final = {
    "F64": 2.0**-22,
    "F32": 2.0**-22,
    "F16": 2.0**-10,
    "BF16": 2.0**-7,
    "F8_E5M2": 0.25,
    "F8_E4M3": 0.125,
}
"""By so much of itself a product changes at most where both factors are stored anew in these digits, or where it is
reckoned here in double precision."""
MOST_RANK: Final = 2048
"""Of one module: an adapter's is at most 512, and that of experts that share a parameter is all of theirs together.
Three such take a gigabyte, of the two that this has."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two updates are."""

    whole: float
    """The cosine over all modules, -1 to 1."""
    median: float
    """The middle one of the modules' own: whoever changes some modules wildly moves the whole, and not this.

    Of those that either changes by more than its digits are rounded: that is the same for all that leave them alone."""
    modules: int
    """That either of them changes."""

    @property
    def highest(self) -> float:
        """The greater of both."""
        return max(self.whole, self.median)


@dataclass(frozen=True, slots=True)
class _Factor:
    """A tensor in its file; read in rows of its long side."""

    path: Path
    tensor: Tensor
    long_first: bool
    """Whether the long side is the file's first: lora_B is (out, r), lora_A is (r, in)."""

    @property
    def length(self) -> int:
        return self.tensor.shape[0 if self.long_first else 1]

    @property
    def rank(self) -> int:
        return self.tensor.shape[1 if self.long_first else 0]

    def rows(self, begin: int, end: int) -> Matrix:
        """Return the part of the long side from `begin` to `end`, as (rows, r)."""
        stored = np.memmap(
            self.path, dtype=_STORED[self.tensor.dtype], mode="r", offset=self.tensor.begin, shape=self.tensor.shape
        )
        part = stored[begin:end] if self.long_first else stored[:, begin:end].T
        return _decoded(np.array(part), self.tensor.dtype)


@dataclass(frozen=True, slots=True)
class _Module:
    """One adapter's part of a module."""

    a: _Factor
    b: _Factor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.rank

    @property
    def rounded(self) -> float:
        """By how much of itself its product may change where it is stored."""
        return max(_ROUNDED[self.a.tensor.dtype], _ROUNDED[self.b.tensor.dtype])


class Adapter:
    """A sound adapter (`check_adapter`) in a folder, of which the header alone is held.

    Raises AdapterInvalid, for a rank beyond `MOST_RANK` too.
    """

    def __init__(self, folder: Path) -> None:
        where, path = str(folder), folder / WEIGHTS_FILE
        config = parse_config((folder / CONFIG_FILE).read_bytes(), where=where)
        try:
            header = read_header(path)
        except NotSafetensors as error:
            raise AdapterInvalid(f"{where}: {WEIGHTS_FILE} is {error}.") from error
        self.modules: Mapping[str, _Module] = {
            name: _module(path, name, pair, config) for name, pair in pairs_of(header.tensors, where=where).items()
        }


def _module(path: Path, name: str, pair: Mapping[str, Tensor], config: LoraConfig) -> _Module:
    try:
        a, b = pair["lora_A"], pair["lora_B"]
    except KeyError as error:
        raise AdapterInvalid(f"{path}: {name} has no {error.args[0]}. The adapter isn't whole.") from None
    if (rank := a.shape[0]) > MOST_RANK:
        raise AdapterInvalid(f"{path}: {name} has the rank {rank}, and at most {MOST_RANK} are compared.")
    return _Module(
        a=_Factor(path, a, long_first=False), b=_Factor(path, b, long_first=True), scale=config.scale_of(name)
    )


def compare(one: Adapter, other: Adapter, parent: Adapter | None) -> Likeness:
    """Return how alike two updates are; `parent`: what both began from, None for the base model itself.

    A module that one of them changes alone counts as unlike; one that neither changes doesn't count.
    """
    changed, dot, first, second = 0, 0.0, 0.0, 0.0
    cosines = []
    for name in sorted(one.modules.keys() | other.modules.keys()):
        modules = [each.modules.get(name) if each is not None else None for each in (one, other, parent)]
        products = _products(modules)
        if products is None:
            changed += 1
            cosines.append(0.0)
            continue
        product, square, other_square = _of_differences(products)
        if square <= 0 and other_square <= 0:
            continue
        changed, dot, first, second = changed + 1, dot + product, first + square, second + other_square
        rounded = max(each.rounded for each in modules[:2] if each is not None)
        if max(square, other_square) > rounded**2 * products[2, 2]:
            cosines.append(_cosine(product, square, other_square))
    return Likeness(_cosine(dot, first, second), float(np.median(cosines)) if cosines else 0.0, changed)


def _of_differences(products: Matrix) -> tuple[float, float, float]:
    """Return ⟨x - p, y - p⟩ and both squares, from (3, 3) inner products of x, y and p."""

    def of(one: int, other: int) -> float:
        found = (products[one, other], -products[one, 2], -products[2, other], products[2, 2])
        return math.fsum(float(each) for each in found)

    return of(0, 1), of(0, 0), of(1, 1)


def _products(modules: Sequence[_Module | None]) -> Matrix | None:
    """Return the inner products of B·A with one another, zero for what is not there; None for matrices of different
    sizes."""
    there = [(place, each) for place, each in enumerate(modules) if each is not None]
    if len({(each.a.length, each.b.length) for _, each in there}) != 1:
        return None
    columns = _gram([each.a for _, each in there]) * _gram([each.b for _, each in there])
    of = np.repeat([place for place, _ in there], [each.rank for _, each in there])
    scales = np.repeat([each.scale for _, each in there], [each.rank for _, each in there])
    columns *= scales[:, None] * scales[None, :]
    chosen = of[None, :] == np.arange(len(modules))[:, None]
    found: Matrix = chosen @ columns @ chosen.T
    return found


def _gram(factors: Sequence[_Factor]) -> Matrix:
    """Return the products of all their columns along the long side, of one length, with one another."""
    ranks = sum(each.rank for each in factors)
    found = np.zeros((ranks, ranks))
    for begin, end in _blocks(factors[0].length):
        block = np.concatenate([each.rows(begin, end) for each in factors], axis=1)
        found += block.T @ block
    return found


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, _BLOCK):
        yield begin, min(length, begin + _BLOCK)


def _cosine(product: float, first: float, second: float) -> float:
    return product / math.sqrt(first * second) if first > 0 and second > 0 else 0.0


def _decoded(stored: npt.NDArray[np.generic], dtype: str) -> Matrix:
    """Return numbers as they are stored, in double precision."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F8_E5M2":
        return (stored.astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    if dtype == "F8_E4M3":
        return _E4M3[stored.astype(np.int64)]
    return stored.astype(np.float64)


def _e4m3() -> Matrix:
    """Return the format's 256 values: a sign, four bits of exponent with bias 7, three of mantissa; no infinity."""
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    return np.where(bits & 0x7F == 0x7F, np.nan, np.where(bits & 0x80, -size, size))


_E4M3: Final = _e4m3()
