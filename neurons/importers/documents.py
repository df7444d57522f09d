"""The objects of a file, one after the other and never all at once: JSON Lines, or one JSON list as many publish it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from neurons import jsonl

MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one object. The trainer reads lines of 256 KiB; what is longer is refused by its number, and not held."""
_CHUNK: Final = 1 << 16
_BLANK: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Read:
    """One object, or why there is none."""

    number: int
    """Of the line, from 1; in a list, of the object."""
    value: Any = None
    flaw: str | None = None


class NotReadable(Exception):  # noqa: N818 - said of the file
    """The whole file is of another kind; the message says of which."""


def documents(file: BinaryIO) -> Iterator[Read]:
    """Yield what stands in a file. Raises NotReadable with a file that is no JSON in UTF-8."""
    head = file.read(_CHUNK)
    file.seek(0)
    if (kind := jsonl.other_kind(jsonl.without_marks(head[:4096]) or head[:4096])) is not None:
        raise NotReadable(kind)
    bare = jsonl.without_marks(head)
    if bare.startswith(b"[") and not bare[1:].lstrip(_BLANK).startswith((b"[", b'"')):
        yield from _in_list(file)
    else:
        yield from _in_lines(file)


def _in_lines(file: BinaryIO) -> Iterator[Read]:
    number = 0
    while raw := file.readline(MAX_BYTES + 1):
        number += 1
        if len(raw) > MAX_BYTES and not raw.endswith(b"\n"):
            while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield Read(number, flaw=f"longer than {MAX_BYTES // 1024 // 1024} MiB")
            continue
        # Mac's line ends: a file of carriage returns alone is one line to readline.
        for each in _by_returns(raw):
            if not jsonl.without_marks(each):
                continue
            yield _read(number, each)


def _by_returns(raw: bytes) -> list[bytes]:
    parts = raw.rstrip(b"\r\n").split(b"\r")
    return parts if len(parts) > 1 and all(not part.strip() or part.strip()[:1] == b"{" for part in parts) else [raw]


def _read(number: int, raw: bytes) -> Read:
    try:
        text = jsonl.without_marks(raw).decode()
    except UnicodeDecodeError:
        return Read(number, flaw="not in UTF-8 (saved as Latin-1 or Windows-1252?); save it as UTF-8")
    try:
        return Read(number, jsonl.read_object(text))
    except jsonl.NotJsonLines as error:
        return Read(number, flaw=str(error))


def _in_list(file: BinaryIO) -> Iterator[Read]:  # noqa: PLR0912 - a scanner is one loop
    """Yield the objects of one JSON list, holding one at a time: cut by depth of brackets outside of texts."""
    number, depth, quoted, escaped = 0, 0, False, False
    held = bytearray()
    opened = closed = too_long = False
    while chunk := file.read(_CHUNK):
        for byte in chunk:
            if not opened:
                opened = byte == 0x5B
                continue
            if depth == 0:
                if byte in (0x7B, 0x5B):  # { [
                    number, depth = number + 1, 1
                    held[:] = bytes((byte,))
                    too_long = False
                elif byte == 0x5D:  # ]
                    closed = True
                elif byte not in b", \t\r\n":
                    yield Read(number + 1, flaw="no object stands in its place of the list")
                    return
                continue
            if len(held) <= MAX_BYTES:
                held.append(byte)
            else:
                too_long = True
            if quoted:
                escaped, quoted = (byte == 0x5C and not escaped), not (byte == 0x22 and not escaped)
            elif byte == 0x22:
                quoted = True
            elif byte in (0x7B, 0x5B):
                depth += 1
            elif byte in (0x7D, 0x5D):
                depth -= 1
                if depth == 0:
                    long = f"longer than {MAX_BYTES // 1024 // 1024} MiB"
                    yield Read(number, flaw=long) if too_long else _read(number, bytes(held))
    if depth or not closed:
        yield Read(number if depth else number + 1, flaw="the file ends in the middle of its list: it was cut")


def as_line(fields: dict[str, Any]) -> bytes:
    """Return fields as one line of JSON."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
