"""Where something failed is logged, and nothing that the error says."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from neurons.miner.logs import JsonFormatter
from neurons.unsaid import WithoutWords, on_loop_error, traceback_of, where

SECRET = "Sarmila Thapa"


def fail() -> None:
    try:
        {}[SECRET]
    except KeyError as error:
        raise ValueError(f"can't read {SECRET}") from error


@pytest.fixture(params=[JsonFormatter(), WithoutWords("%(levelname)s %(message)s")], ids=["json", "text"])
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the root logger writes, as our processes format it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param)
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def test_a_traceback_has_lines_of_code_and_kinds_of_errors_and_no_words(written: io.StringIO) -> None:
    try:
        fail()
    except ValueError:
        logging.getLogger("x").exception("it failed")
    said = written.getvalue()
    assert SECRET not in said
    assert "ValueError" in said
    assert "KeyError" in said
    assert "in fail" in said


def test_where_names_the_innermost_line() -> None:
    try:
        fail()
    except ValueError as error:
        told = where(error)
    assert told["error"] == "ValueError"
    assert told["where"].endswith("in fail")
    assert where(None) == {"error": "", "where": ""}
    assert traceback_of(None) == ""


async def test_what_asyncio_tells_of_is_logged_without_what_it_holds(written: io.StringIO) -> None:
    """A task that nobody awaited is printed with its exception, and a protocol with its transport."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    try:

        async def broken(_: str) -> None:
            fail()

        task = asyncio.create_task(broken(SECRET), name=SECRET)
        await asyncio.wait([task])
        loop.call_exception_handler(
            {"message": f"about {SECRET}", "exception": task.exception(), "task": task, "protocol": SECRET}
        )
        loop.call_exception_handler({"message": f"about {SECRET}"})
    finally:
        loop.set_exception_handler(None)
    said = written.getvalue()
    assert SECRET not in said
    assert said.count("nobody waited for") == 2
    assert "in fail" in said
