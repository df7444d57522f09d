"""The header of a safetensors file, read as strictly as the library reads it, and in words what isn't one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
"""Of an adapter: one of 46,000 tensors (a mixture of 128 experts in 60 layers) has 7 MB. The format allows 100 MB."""
MOST_VALUES: Final = 1_000_000
"""Of a header, lists and tables with what stands in them: those of 46,000 tensors are 330,000."""
MOST_DIMENSIONS: Final = 8
"""Of a tensor: models have five at most. The product of many large numbers takes hours."""
_PREFIX: Final = 8
_ITEM_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_LOOKS_LIKE: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights: run `git lfs pull` where it comes from"),
    (b"PK\x03\x04", "a PyTorch file, which may run code: save the adapter with safe_serialization=True"),
    (b"\x80\x02", "a pickle, which may run code: save the adapter with safe_serialization=True"),
    (b"GGUF", "a GGUF file: name the folder that PEFT saved"),
    (b"\x1f\x8b", "compressed (gzip): unpack it"),
)


class NotSafetensors(ValueError):  # noqa: N818 - it says what the file is
    """The file is no safetensors file; the text completes "FILE is …"."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Where its bytes begin in the file."""
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds, in the order of its bytes."""

    tensors: tuple[Tensor, ...]


def read_header(path: Path, *, limit: int = MAX_HEADER_BYTES, known_only: bool = True) -> Header:
    """Read the header of the file at `path`; blocks. Raises NotSafetensors, OSError."""
    with path.open("rb") as file:
        return parse_header(file, size=path.stat().st_size, limit=limit, known_only=known_only)


def parse_header(file: BinaryIO, *, size: int, limit: int = MAX_HEADER_BYTES, known_only: bool = True) -> Header:
    """Read the header from the beginning of a file of `size` bytes. Raises NotSafetensors.

    With `known_only`, a dtype of which the size isn't known here is refused; base models may have newer ones.

    The format: 8 bytes little-endian length, a JSON object of that length (name → dtype, shape, data_offsets), then
    the tensors' bytes, without gaps.
    """
    start = file.read(_PREFIX + 64)
    length = header_length(start, size=size, limit=limit)
    text = (start[_PREFIX:] + file.read(max(0, length - len(start) + _PREFIX)))[:length]
    return Header(_tensors(text, data=_PREFIX + length, size=size, known_only=known_only))


def header_length(start: bytes, *, size: int, limit: int = MAX_HEADER_BYTES) -> int:
    """Return the header's length in bytes, from the file's first bytes. Raises NotSafetensors."""
    if size == 0:
        raise NotSafetensors("empty: copy it again")
    for beginning, what in _LOOKS_LIKE:
        if start.startswith(beginning):
            raise NotSafetensors(what)
    if start.lstrip()[:1] == b"<":
        raise NotSafetensors("a web page, probably an error of the server that it was fetched from: fetch it again")
    length = int.from_bytes(start[:_PREFIX], "little")
    if len(start) <= _PREFIX or length > limit or start[_PREFIX : _PREFIX + 1] != b"{":
        raise NotSafetensors("no safetensors file: name the folder that PEFT's save_pretrained wrote")
    if _PREFIX + length > size:
        raise NotSafetensors(f"cut off after {size} bytes, within its header of {length}: copy it again")
    return length


def _tensors(text: bytes, *, data: int, size: int, known_only: bool) -> tuple[Tensor, ...]:
    if (values := sum(map(text.count, (b",", b"[", b"{")))) > MOST_VALUES:
        raise NotSafetensors(f"of a header with {values} values, and {MOST_VALUES} are the most that is read here")
    try:
        # Of bytes, json would guess the encoding: the library takes UTF-8 alone, and no mark before it.
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(f"damaged: its header can't be read ({_short(error)}): copy it again") from error
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise NotSafetensors("damaged: its header's __metadata__ is no table of texts: save it again")
    found = sorted(
        (_tensor(name, entry, data, known_only) for name, entry in entries.items()), key=lambda t: (t.begin, t.end)
    )
    end = data
    for tensor in found:
        if tensor.begin != end:
            raise NotSafetensors(
                f"damaged: the bytes of {tensor.name[:200]!r} don't follow the tensor before: save it again"
            )
        end = tensor.end
    if end > size:
        raise NotSafetensors(f"cut off: it has {size} bytes, its header says {end}: copy it again")
    if end < size:
        raise NotSafetensors(f"damaged: it has {size} bytes, its header says {end}: copy it again")
    return tuple(found)


def _tensor(name: str, entry: Any, data: int, known_only: bool) -> Tensor:
    """Return one entry of the header. Raises NotSafetensors."""
    try:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        begin, end = offsets
    except (KeyError, TypeError, ValueError, IndexError):
        raise NotSafetensors(f"damaged: its header's entry {name[:200]!r} is none of a tensor: save it again") from None
    if isinstance(shape, list) and len(shape) > MOST_DIMENSIONS:
        raise NotSafetensors(f"of a kind that isn't read here: {name[:200]!r} has {len(shape)} dimensions")
    numbers = [begin, end, *shape] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    if not isinstance(dtype, str) or not all(_is_count(number) for number in numbers):
        raise NotSafetensors(f"damaged: its header's entry {name[:200]!r} is none of a tensor: save it again")
    if dtype not in _ITEM_BYTES and known_only:
        raise NotSafetensors(
            f"of a kind that isn't read here: {name[:200]!r} has dtype {dtype[:20]!r}: save it as F32 or BF16"
        )
    if dtype in _ITEM_BYTES and end - begin != prod(shape) * _ITEM_BYTES[dtype]:
        raise NotSafetensors(f"damaged: {name[:200]!r} has {end - begin} bytes, which is not its shape: save it again")
    return Tensor(name, dtype, tuple(shape), data + begin, data + end)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Make a table of pairs, refusing a key that comes twice: two readers could take different ones."""
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"{key[:200]!r} comes twice")
        table[key] = value
    return table


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _short(error: BaseException) -> str:
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
