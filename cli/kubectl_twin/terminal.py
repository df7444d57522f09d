"""The one way to the terminal: whatever comes from a cluster is printed as text, and does nothing.

A doctor's name, a condition's message or a model's answer may hold what a terminal obeys: cursor, clipboard (OSC 52),
hyperlinks, directions of writing that show one digest as another. This module, and the console of `text_console`, alone
write to the standard streams: what is printed loses those characters there.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, TYPE_CHECKING, Final

from kubectl_twin.suggestions import told
from kubectl_twin.wrapping import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubectl_twin.columns import Cell
    from kubectl_twin.text_console import TextConsole

_COLOURS: Final = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}
_DIRECTIONS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@cache
def _is_obeyed(character: str) -> bool:
    """Tell whether a terminal obeys a character, or shows by it something else than there is.

    Unicode's other format characters stay: they join letters in many scripts.
    """
    if character in "\n\t":
        return False
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS or 0xE0000 <= ord(character) < 0xE0080


def as_text(text: str, *, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """Return a text as a terminal shows it without obeying it; `instead` stands where something was to be obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(instead if _is_obeyed(each) else each for each in text)


def console(*, stderr: bool = False) -> TextConsole:
    """Return a console that is wide when it is no terminal."""
    from kubectl_twin.text_console import text_console  # noqa: PLC0415 - Rich takes a tenth of a second

    return text_console(stderr=stderr)


def say(text: str, *, err: bool = False) -> None:
    """Print a sentence, on a terminal in lines that end between words."""
    stream = sys.stderr if err else sys.stdout
    print(_fitted(as_text(told(text)), stream), file=stream, flush=True)


def complain(text: str) -> None:
    """Print why something can't be done, on standard error."""
    said = _fitted(as_text(told(text)), sys.stderr)
    print(_coloured(said, "red" if _takes_colours(sys.stderr) else ""), file=sys.stderr)


def write(piece: str) -> None:
    """Write a piece of an answer as it arrives."""
    sys.stdout.write(as_text(piece))
    sys.stdout.flush()


def width() -> int | None:
    """Return how wide the terminal is; None where the output is none, and nothing has to fit."""
    return _columns(sys.stdout) if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else None


def _columns(stream: IO[str]) -> int:
    if (said := os.environ.get("COLUMNS", "")).isdigit() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:  # a terminal that says not how wide it is
        return 80


def _fitted(text: str, stream: IO[str]) -> str:
    return wrapped(text, _columns(stream)) if stream.isatty() else text


def _takes_colours(stream: IO[str]) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def print_cells(cells: Iterable[Cell]) -> None:
    """Print a line of a table; what its cells hold is text."""
    coloured = _takes_colours(sys.stdout)
    line = "".join(
        _coloured(as_text(each.text, instead="").replace("\n", " "), each.style if coloured else "") for each in cells
    )
    print(line.rstrip(), flush=True)


def _coloured(text: str, style: str) -> str:
    return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style else text


def print_document(document: object, output: str) -> None:
    """Print for programs, as JSON or as YAML."""
    if output == "json":
        print_json(document)
        return
    import yaml  # noqa: PLC0415

    # ASCII alone: the rest, with what a terminal obeys, is written as YAML's escapes.
    yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=False, explicit_start=True)
    sys.stdout.flush()


def print_json(document: object) -> None:
    """Print for programs: the same values, with what a terminal obeys written as JSON's escapes."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    escaped = "".join(_escaped(each) if _is_obeyed(each) else each for each in text)
    sys.stdout.write(escaped + "\n")
    sys.stdout.flush()


def _escaped(character: str) -> str:
    return re.sub(r"^\"|\"$", "", json.dumps(character))


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but y or yes is no."""
    import typer  # noqa: PLC0415 - it takes longer to import than `list` to answer

    return typer.confirm(as_text(question), default=False, err=True)


def is_interactive() -> bool:
    """Tell whether a person is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def run_program(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program of our own and print what it prints, as text; return its exit status.

    Standard input is the caller's.
    """
    import subprocess  # noqa: PLC0415 - few commands run one

    width = {"COLUMNS": str(console().width)} if sys.stdout.isatty() else {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        env={**(os.environ if env is None else env), **width},
    ) as child:  # fmt: skip
        pumps = [
            threading.Thread(target=_pump, args=(source, target), daemon=True)
            for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
        ]
        for each in pumps:
            each.start()
        for each in pumps:
            each.join()
    return child.returncode


def _pump(source: IO[str] | None, target: IO[str]) -> None:
    for line in source or ():
        try:
            target.write(as_text(line))
            target.flush()
        except BrokenPipeError:  # `| head` went away; the program is let end
            continue
