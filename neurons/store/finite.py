"""Are weights finite, and of a size that training makes? Their top bytes tell: 30 MB take some 0.05 s.

An exponent is in the top byte of each float format, so one strided copy of the bytes and one table tell; only what is
found is looked at closely. One NaN or infinity in an adapter can spoil what an engine answers for every other model it
holds; and values above 2^17 become infinite where the engine computes in half precision, or in the product of A and B.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from neurons.store.safetensors import Tensor

LARGEST: Final = 131_072.0
"""2^17, in F32, BF16 and F64; F16 and F8 end below it. Trained LoRA weights are below 100."""
_BLOCK_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Format:
    item: int
    """Bytes of one value, little-endian."""
    beyond: bytes
    """The top bytes (the sign's bit and the exponent's highest) that only NaN, infinity or values ≥ LARGEST have."""


def _from(lowest: int) -> bytes:
    return bytes(byte for byte in range(256) if byte & 0x7F >= lowest)


_FORMATS: Final = {
    "F64": _Format(8, _from(0x41)),
    "F32": _Format(4, _from(0x48)),
    "BF16": _Format(2, _from(0x48)),
    "F16": _Format(2, _from(0x7C)),
    "F8_E5M2": _Format(1, _from(0x7C)),
    "F8_E4M3": _Format(1, _from(0x7F)),
}
DTYPES: Final = tuple(_FORMATS)
"""The formats that weights may have."""


@dataclass(frozen=True, slots=True)
class BadValue:
    """The first value of a file that no trained weight has."""

    tensor: str
    index: int
    """Its place in the tensor, counted through all dimensions."""
    value: float


def first_bad_value(path: Path, tensors: Iterable[Tensor]) -> BadValue | None:
    """Return the first value that isn't finite or is beyond LARGEST; blocks while it reads. Raises OSError.

    The tensors are in the order of their bytes, of a dtype among DTYPES.
    """
    with path.open("rb", buffering=0) as file:
        for run in _runs(tensors):
            if (place := _scan(file, run)) is not None:
                return _look(file, run, place)
    return None


def _runs(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield neighbours of one dtype together, so that small tensors cost no read each."""
    run: list[Tensor] = []
    for tensor in tensors:
        if run and tensor.dtype != run[-1].dtype:
            yield run
            run = []
        run.append(tensor)
    if run:
        yield run


def _scan(file: BinaryIO, run: list[Tensor]) -> int | None:
    """Return where in the file the first bad value of these tensors begins."""
    form = _FORMATS[run[0].dtype]
    at, end = run[0].begin, run[-1].end
    file.seek(at)
    block = bytearray(_BLOCK_BYTES)
    while at < end:
        count = _fill(file, memoryview(block)[: min(_BLOCK_BYTES, end - at)])
        tops = block[form.item - 1 : count : form.item]
        if len(tops.translate(None, form.beyond)) != len(tops):
            return at + form.item * next(i for i, byte in enumerate(tops) if byte in form.beyond)
        at += count
    return None


def _fill(file: BinaryIO, view: memoryview) -> int:
    """Read until the view is full. Raises OSError when the file ends before: somebody cuts it meanwhile."""
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise OSError("the file became shorter while it was read")
        filled += count
    return filled


def _look(file: BinaryIO, run: list[Tensor], place: int) -> BadValue:
    tensor = next(tensor for tensor in run if tensor.begin <= place < tensor.end)
    item = _FORMATS[tensor.dtype].item
    file.seek(place)
    return BadValue(tensor.name, (place - tensor.begin) // item, _value(tensor.dtype, file.read(item)))


def _value(dtype: str, data: bytes) -> float:
    match dtype:
        case "F64":
            return float(struct.unpack("<d", data)[0])
        case "F32":
            return float(struct.unpack("<f", data)[0])
        case "BF16":
            return float(struct.unpack("<f", b"\0\0" + data)[0])
        case "F16":
            return float(struct.unpack("<e", data)[0])
        case "F8_E5M2":
            return float(struct.unpack("<e", b"\0" + data)[0])
        case _:
            return math.nan  # F8_E4M3 has no infinity, and ends at 448
