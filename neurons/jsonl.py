"""JSON Lines as people save them: what else a file may be, and one line read with errors in our words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

MARK: Final = b"\xef\xbb\xbf"
"""With which some programs begin a file in UTF-8, some of them twice; it is no part of the text."""
_ONE_A_LINE: Final = "one object {…} a line"
_OTHER_KINDS: Final = (
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z\xbc\xaf"), "compressed. Unpack it."),
    (
        (b"%PDF", b"PAR1", b"SQLite format", b"Obj\x01", b"\xd0\xcf\x11\xe0"),
        "of another kind. Export it as JSON Lines.",
    ),
    ((b"\xff\xfe", b"\xfe\xff"), "not in UTF-8 (UTF-16, it seems). Save it as UTF-8."),
)
_DIGITS: Final = 1000


class NotJsonLines(ValueError):  # noqa: N818 - said of the line
    """A line is no JSON; the message says what it is instead, and never what stands in it."""


def without_marks(raw: bytes) -> bytes:
    """Return a line without byte order marks and blanks around it."""
    raw = raw.strip()
    while raw.startswith(MARK):
        raw = raw.removeprefix(MARK).strip()
    return raw


def written(raw: bytes) -> list[bytes]:
    """Return what was written of a line that holds NULs, in its order; empty for nothing but NULs.

    After a loss of power a file may end in NULs: its length was kept, its last block was not. What is appended later
    stands behind them. In UTF-16 and UTF-32 at most three stand in a row, and such a line is returned as it is.
    """
    parts = [part for each in _LOST.split(raw) if (part := without_marks(each.strip(b"\x00")))]
    return [without_marks(raw)] if any(b"\x00" in part for part in parts) else parts


_LOST: Final = re.compile(rb"\x00{4,}")


def other_kind(raw: bytes) -> str | None:
    """Say what a file is whose line is no text in UTF-8 that somebody wrote by the line; None for one that may be."""
    for beginnings, what in _OTHER_KINDS:
        if raw.startswith(beginnings):
            return f"the file is {what}"
    if b"\x00" in raw:
        text = raw.replace(b"\x00", b"")
        if len(text) * 3 > len(raw) and not any(byte < 9 for byte in text[:200]):
            return f"the file is {_OTHER_KINDS[-1][1]}"
        return "the file is no text. Export it as JSON Lines in UTF-8."
    return None


def read_object(text: str) -> Any:
    """Read one line, without marks and blanks around it. Raises NotJsonLines."""
    try:
        return json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_number, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise NotJsonLines(_instead(text, error)) from None
    except RecursionError:
        raise NotJsonLines("not JSON: nested too deeply") from None
    except ValueError as error:
        raise NotJsonLines(f"not JSON: {error}") from None


def is_unfinished(raw: bytes) -> bool:
    """Tell whether a line is the beginning of an object, as the last one of a file whose upload is under way."""
    raw = without_marks(raw)
    if not raw.startswith(b"{"):
        return False
    try:
        json.loads(raw.decode(errors="replace"))
    except json.JSONDecodeError as error:
        return error.msg != "Extra data"
    except (RecursionError, ValueError):
        pass
    return False


def is_cut(text: str) -> bool:
    """Tell whether a line escapes half a character (one of a pair of surrogates), as where a text was cut."""
    halves = _HALF.findall(text.replace("\\\\", ""))
    return any(not _PAIR.fullmatch(each) for each in halves)


_HALF: Final = re.compile(r"(?:\\u[dD][89a-fA-F][0-9a-fA-F]{2})+")
_PAIR: Final = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+")


def _instead(text: str, error: json.JSONDecodeError) -> str:
    """Say what a line is that is no JSON."""
    said = f"{error.msg}, at character {error.colno}"
    if text in ("{", "[") or (text[-1:] in "{[," and error.pos >= len(text)):
        return "not JSON: the object goes on in the next line; write each object on a line of its own (`jq -c .`)"
    if text.startswith("{"):
        follows = error.msg == "Extra data"
        said = f"something follows the object, at character {error.colno}; expected {_ONE_A_LINE}" if follows else said
        return f"not JSON: {said}"
    for is_it, what in _INSTEAD:
        if is_it(text):
            return f"not JSON but {what}; expected {_ONE_A_LINE}"
    return f"not JSON: {said}; expected {_ONE_A_LINE}"


_TABLE: Final = re.compile(r"[^{\[\"':]+[,;\t]|\"[^\"]*\"[,;\t]")
_INSTEAD: Final[tuple[tuple[Callable[[str], bool], str], ...]] = (
    (lambda text: text.startswith("<"), "a web page or XML"),
    (lambda text: text.startswith(("#", "//", "/*")), "a comment, which JSON Lines have none of"),
    (lambda text: not text.startswith("[") and _TABLE.match(text) is not None, "a table (CSV), it seems"),
)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands there twice, and nobody can tell which one counts")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
