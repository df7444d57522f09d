"""Where something failed, without what it says: an exception's words may hold a patient's.

`KeyError: 'Ram Thapa'`, a decoder's error with the whole body, a task's `repr` with its exception: Python puts values
into what it tells of errors. A log gets the kinds of the errors, and the lines of code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

log = logging.getLogger(__name__)

_MOST_LINES: Final = 30
_MOST_CAUSES: Final = 5


def where(error: object) -> dict[str, str]:
    """Return for a log's `extra` what kind of error it is, and its innermost line of code."""
    if isinstance(error, tuple):
        error = error[1]
    if not isinstance(error, BaseException):
        return {"error": "", "where": ""}
    lines = _lines(error.__traceback__)
    return {"error": type(error).__name__, "where": lines[-1] if lines else ""}


def traceback_of(error: BaseException | None) -> str:
    """Return an error's lines of code, and those of what it came from, one a line."""
    told: list[str] = []
    for _ in range(_MOST_CAUSES):
        if error is None:
            break
        told += [type(error).__qualname__, *(f"  {line}" for line in _lines(error.__traceback__)[-_MOST_LINES:])]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(told)


class WithoutWords(logging.Formatter):
    """A formatter whose tracebacks have no words of the errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; another formatter's traceback, which logging keeps in the record, doesn't count."""
        before, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = before

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Return the traceback of an error."""
        return traceback_of(ei[1])


def on_loop_error(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what asyncio tells of; its own handler prints tasks and protocols with what they hold."""
    del loop
    error = context.get("exception")
    exc_info = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else None
    log.error("an error that nobody waited for", exc_info=exc_info, extra=where(error))


def _lines(trace: TracebackType | None) -> list[str]:
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{'/'.join(code.co_filename.split('/')[-3:])}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return lines
