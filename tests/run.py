"""Runs all suites with all of their set-up: `make test`, or `python tests/run.py --only unit,api`.

The long builds run beside the suites that need none of them. The cluster is named `test`; one that is up already for
the demo is not touched. Whatever an earlier run left behind, however it ended, is removed first.
"""

# ruff: noqa: T201 - it speaks to whoever typed `make test`
from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from demo import images
from demo.errors import DemoError
from localcluster import Cluster, tools
from localcluster.errors import LocalClusterError
from localcluster.layout import state_root
from localcluster.preflight import disk_needed_gb

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "test"
TESTS_FAILED, INTERRUPTED, NO_TESTS_COLLECTED = 1, 2, 5
LOG_LINES = 30
IMAGES_DISK_GB = 18.0
BUILD_TIMEOUT_S = 60 * 60
SUITE_TIMEOUT_S = 90 * 60
LEAVE_S = 120
BROWSER_PACKAGES = ("chromium", "fonts-lohit-deva", "fonts-dejavu-core")
BROWSER_TIMEOUT_S = 15 * 60


class SetUpError(Exception):
    """Something that the tests need could not be made; the message says what and shows the end of its log."""


@dataclass(frozen=True)
class Suite:
    """A folder of tests, and what it needs."""

    name: str
    programs: bool = False
    cluster: bool = False
    images: bool = False
    browser: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its tests are."""
        return ROOT / "tests" / self.name

    @property
    def exists(self) -> bool:
        """Whether it has any tests."""
        return any(self.folder.rglob("test_*.py"))


TWO_AT_A_TIME = ("-n", "2", "--dist", "loadfile")
"""A file's tests together: most of them wait for something, and one core would idle. Each has its own namespace."""
SUITES = (
    # Tests of a module against a real API server or S3 service lie beside its unit tests, and run with the api suite.
    Suite("unit", browser=True, arguments=("-m", "not cluster", *TWO_AT_A_TIME)),
    Suite("standin"),
    Suite("chart", programs=True, cluster=True),
    Suite(
        "api", programs=True, cluster=True, arguments=(str(ROOT / "tests" / "unit"), "-m", "cluster", *TWO_AT_A_TIME)
    ),
    Suite("fault", programs=True, cluster=True),
    Suite("scale", programs=True, cluster=True),
    Suite("e2e", programs=True, cluster=True, images=True),
)


@dataclass(frozen=True)
class Counts:
    """What became of a suite's tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    unsteady: tuple[str, ...] = ()
    """Those of the passed ones that failed at first."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.unsteady + other.unsteady,
        )

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        unsteady = "".join(f"\npassed at the second try only: {each}" for each in self.unsteady)
        return f"{self.passed} passed, {self.failed} failed{skipped}{unsteady}"


class Clock:
    """Prints steps with the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a line before and one after."""
        self.say(f"{title} ...")
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.say(f"{title}: FAILED after {time.monotonic() - began:.1f} s")
            raise
        self.say(f"{title}: {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        """Print a line; together with `step`, what `localcluster` calls Steps."""
        self.say(text)


class Build:
    """A command that runs beside the tests, at low priority, into a log."""

    def __init__(self, clock: Clock, title: str, command: Sequence[str]) -> None:
        self._clock = clock
        self._title = title
        self._began = time.monotonic()
        self._log = LOGS / f"{title.replace(' ', '-')}.log"
        nice = ["nice", "-n", "10"] if shutil.which("nice") else []
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*nice, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        clock.say(f"{title}: begun in the background (log: {self._log.relative_to(ROOT)})")

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            SetUpError: it failed.
        """
        if self._process.poll() is None:
            self._clock.say(f"waiting: {self._title} ...")
        try:
            code = self._process.wait(timeout=BUILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.stop()
            code = -1
        if code != 0:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            raise SetUpError(f"{self._title} failed; the end of {self._log}:\n{tail}")
        self._clock.say(f"{self._title}: done ({time.monotonic() - self._began:.1f} s since it began)")

    def stop(self) -> None:
        """End it and its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, 15)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites; 0 when all tests passed."""
    options = parser().parse_args(arguments)
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as after Ctrl-C
    clock = Clock()
    with only_run() as alone:
        if options.clear:
            if alone:
                Cluster(options.name).down()
            else:
                print("`make test` is running: its cluster stays")
            return 0
        if not alone:
            print("Another `make test` is running on this machine; wait for it to end.")
            return 1
        chosen = [suite for suite in SUITES if (not options.only or suite.name in options.only) and suite.exists]
        if not chosen:
            print(f"No tests for {', '.join(options.only) or 'anything'}.")
            return 1
        total, broken = Counts(), False
        try:
            for counts in run_all(chosen, options, clock):
                total += counts
        except (SetUpError, LocalClusterError, subprocess.TimeoutExpired) as error:
            print(f"\n{error}\n", flush=True)
            broken = True
        except KeyboardInterrupt:
            print("\ninterrupted", flush=True)
            broken = True
    if broken:
        total += Counts(failed=1)
    clock.say("done")
    print(total, flush=True)
    return 1 if total.failed or broken else 0


def run_all(chosen: Sequence[Suite], options: argparse.Namespace, clock: Clock) -> Iterator[Counts]:
    """Run the suites in order, yielding what each counted; what a suite needs is there before it starts."""
    cluster = Cluster(options.name, audit=True, steps=clock)
    builds: dict[str, Build] = {}
    brought_up = False
    loaded = False
    try:
        if any(suite.programs for suite in chosen):
            with clock.step("check this machine"):
                cluster.preflight(
                    disk_gb=disk_needed_gb(tools.TOOLS) + (IMAGES_DISK_GB if needs_images(chosen) else 0.0)
                )
            names = [tool.name for tool in tools.TOOLS]
            builds["programs"] = Build(
                clock, "programs", [sys.executable, "-m", "localcluster", "--name", cluster.name, "build", *names]
            )
        if any(suite.images for suite in chosen):
            script = " && ".join(shlex.join(command) for command in images.build_commands())
            builds["images"] = Build(clock, "images", ["sh", "-c", script])
        for suite in chosen:
            if suite.programs and "programs" in builds:
                builds.pop("programs").wait()
            if suite.browser:
                install_browser(clock)
            if suite.cluster and not brought_up:
                with clock.step("bring the test cluster up"):
                    cluster.down()
                    brought_up = True
                    cluster.up()
            if suite.images and not loaded:
                builds.pop("images").wait()
                with clock.step("load the images"):
                    cluster.load_images(image_archives())
                loaded = True
            yield run_suite(suite, cluster, options, clock)
    finally:
        for build in builds.values():
            build.stop()
        if brought_up and not options.keep:
            with clock.step("take the test cluster down"):
                cluster.down()


def install_browser(clock: Clock) -> None:
    """Install Debian's Chromium where that can be done; without one the tests of the pages are skipped, and say so."""
    if os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        clock.say(
            "no Chromium here, and only root can install Debian's: the tests of the pages in a browser are skipped; "
            f"apt-get install {' '.join(BROWSER_PACKAGES)}, or name one in $CHROMIUM"
        )
        return
    log = LOGS / "browser.log"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Never at the price of something that is there. The fonts: Devanagari, and Latin for a machine without any.
    install = ["apt-get", "install", "-y", "--no-install-recommends", "--no-remove", *BROWSER_PACKAGES]
    with clock.step("install Chromium"), log.open("wb") as stream:
        for command in (["apt-get", "update"], install):
            done = subprocess.run(
                command,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=BROWSER_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                clock.say(f"`{' '.join(command)}` failed (log: {log.relative_to(ROOT)}): no test uses a browser")
                return


def needs_images(chosen: Sequence[Suite]) -> bool:
    """Tell whether the images are still to be built."""
    return any(suite.images for suite in chosen) and not images.are_built()


def image_archives() -> list[Path]:
    """Return the archives of the images, which are built by now, in the order in which to load them."""
    command, _model = images.build_commands()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=BUILD_TIMEOUT_S)
    try:
        built = images.parse_built(done.stdout)
    except DemoError as error:
        raise SetUpError(f"{error.what}\n{error.evidence}\n{error.remedy}") from error
    return [image.archive for image in built.values() if image.archive is not None]


def run_suite(suite: Suite, cluster: Cluster, options: argparse.Namespace, clock: Clock) -> Counts:
    """Run one suite with pytest, which prints its own summary; returns what it counted."""
    env = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    if suite.cluster:
        # Never the caller's own cluster.
        env["KUBECONFIG"] = str(cluster.kubeconfig_path)
        env["KUBECTL"] = str(cluster.bin("kubectl"))
    chosen = [str(suite.folder), *suite.arguments]
    if options.keyword:
        chosen += ["-k", options.keyword]
    with clock.step(f"tests/{suite.name}"):
        counts, failed = run_pytest(suite.name, [*chosen, *options.pytest], env)
    # More than a few is no clock that ran late.
    if not failed or len(failed) != counts.failed or len(failed) > options.second_try:
        return counts
    with clock.step(f"tests/{suite.name}: a second try of {len(failed)}"):
        again, failed_again = run_pytest(f"{suite.name}-again", [*failed, *options.pytest], env)
    unsteady = tuple(test for test in failed if test not in failed_again) if again.passed else ()
    return Counts(counts.passed + len(unsteady), counts.failed - len(unsteady), counts.skipped, unsteady)


def run_pytest(title: str, arguments: Sequence[str], env: dict[str, str]) -> tuple[Counts, list[str]]:
    """Run pytest and return what it counted, and the tests that failed as pytest takes their names."""
    report = LOGS / f"{title}.xml"
    report.unlink(missing_ok=True)
    # Only this form of the report names each test's file.
    asked = ["-q", "--durations=10", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    code = run_bounded([sys.executable, "-m", "pytest", *asked, *arguments], env=env, seconds=SUITE_TIMEOUT_S)
    counts, failed = read_report(report)
    if code not in {0, NO_TESTS_COLLECTED} and not (code == TESTS_FAILED and counts.failed):
        counts += Counts(failed=1)  # pytest itself broke, for example while collecting, or was interrupted
    return counts, failed


def run_bounded(command: Sequence[str], *, env: dict[str, str], seconds: float) -> int:
    """Run pytest and return its exit status; one that takes too long is interrupted, so that it tells what it found."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"\ninterrupted after {seconds:.0f} s", flush=True)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LEAVE_S)
        return INTERRUPTED
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read_report(report: Path) -> tuple[Counts, list[str]]:
    """Read pytest's JUnit report: what it counted, and the names of those that failed."""
    if not report.is_file():
        return Counts(), []
    counts, failed = Counts(), list[str]()
    for suite in ET.parse(report).getroot().iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        broken = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        counts += Counts(passed=tests - skipped - broken, failed=broken, skipped=skipped)
        failed += [
            f"{case.get('file')}::{case.get('name')}"
            for case in suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
    return counts, failed


@contextmanager
def only_run() -> Iterator[bool]:
    """Hold the lock of the one run that this machine's test cluster allows; gives False when another holds it."""
    folder = state_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        folder = LOGS  # not root: no cluster can come up anyway, and the unit tests need none
    with (folder / ".test-run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description="Run the tests with all of their set-up.")
    made.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="SUITE,…")
    made.add_argument("-k", dest="keyword", metavar="EXPRESSION", help="pick tests, as pytest's -k")
    made.add_argument("--name", default="test", help="name of the test cluster")
    made.add_argument("--keep", action="store_true", help="leave the test cluster up")
    made.add_argument("--clear", action="store_true", help="only remove what an earlier run left")
    made.add_argument(
        "--second-try", type=int, default=0, metavar="N",
        help="up to N failed tests of a suite are tried again, and named if they pass then: each of them is a fault of "
        "the test or of what it tests, but no reason to throw a day's work away",
    )  # fmt: skip
    made.add_argument("pytest", nargs="*", help="more arguments for pytest, after --")
    return made


if __name__ == "__main__":
    sys.exit(main())
