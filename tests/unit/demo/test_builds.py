"""The long builds."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from demo.builds import Builds
from demo.errors import DemoError
from demo.timeline import Timeline


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(tmp_path, Timeline(Console(file=io.StringIO())))


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_builds_result_is_its_standard_output_and_its_log_the_rest(builds: Builds, tmp_path: Path) -> None:
    said = builds.run("b", script("import sys; print('result'); sys.stderr.write('how far\\n')"), log="b.log")
    assert said == "result\n"
    assert (tmp_path / "b.log").read_text() == "how far\n"


def test_a_failed_build_shows_the_end_of_its_log(builds: Builds) -> None:
    with pytest.raises(DemoError) as failure:
        builds.run("b", script("import sys; sys.stderr.write('no space\\n'); sys.exit(3)"), log="b.log")
    assert failure.value.evidence == "no space\n"
    assert "b.log" in failure.value.remedy


def test_when_another_step_fails_a_running_build_is_ended(builds: Builds, tmp_path: Path) -> None:
    caught: list[DemoError] = []

    def run() -> None:
        try:
            builds.run("b", script("import time; open('started', 'w'); time.sleep(60)"), log="b.log")
        except DemoError as error:
            caught.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        thread = threading.Thread(target=run)
        thread.start()
        while not (tmp_path / "started").exists():
            thread.join(timeout=0.02)
            assert thread.is_alive()
        builds.stop()
        thread.join(timeout=20)
    assert caught


def test_after_that_no_other_build_begins(builds: Builds) -> None:
    builds.stop()
    with pytest.raises(DemoError, match="Not begun"):
        builds.run("b", script("print('never')"), log="b.log")
