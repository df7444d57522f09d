"""A Rich console that prints what it is given as text: no markup is read, and no control character passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kubectl_twin import suggestions
from kubectl_twin.terminal import as_text
from kubectl_twin.wrapping import wrapped

_PIPE_WIDTH: Final = 200
"""Width when the output is no terminal: nobody wants tables that wrap in a file."""


class TextConsole(Console):
    """Rich's console, of which only Rich's own styles and controls reach the terminal as such."""

    def __init__(
        self, *, stderr: bool = False, width: int | None = None, file: IO[str] | None = None, markup: bool = False
    ) -> None:
        """`markup` is for who writes it, and escapes what comes from elsewhere."""
        super().__init__(stderr=stderr, width=width, file=file, highlight=False, emoji=False, markup=markup)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments, their texts as text; control segments are Rich's own, as of a spinner.

        Lines were measured before, and what is taken out takes no room in them.
        """
        if isinstance(renderable, Text):
            renderable = _in_lines(_told(renderable), (options or self.options).max_width)
        for each in super().render(renderable, options):
            yield each if each.control else Segment(as_text(each.text, instead=""), each.style)


def _told(text: Text) -> Text:
    """Return the text, its suggested commands as this call was made, its styles where they were."""
    plain = text.plain
    if suggestions.told(plain) == plain:
        return text
    made = text.copy()
    for found in reversed(list(suggestions.SUGGESTED.finditer(plain))):
        more = suggestions.told(found[0])[len(found[0]) - 1 : -1]
        made = Text.assemble(made[: found.end() - 1], more, made[found.end() - 1 :])
    made.overflow, made.justify, made.no_wrap = text.overflow, text.justify, text.no_wrap
    return made


def _in_lines(text: Text, width: int) -> Text:
    """Return the text with lines that end before a suggested command, where that would be broken and needn't be."""
    if text.no_wrap or "`kubectl " not in text.plain:
        return text
    made = text.copy()
    made.plain = wrapped(text.plain, width)
    return made


def text_console(*, stderr: bool = False) -> TextConsole:
    """Return a console that is wide when it is no terminal."""
    made = TextConsole(stderr=stderr)
    return made if made.is_terminal else TextConsole(stderr=stderr, width=_PIPE_WIDTH)
