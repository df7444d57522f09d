"""`python -m neurons.ledger`: what a validator's operator does with the ledger by hand (docs/ledger.md)."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, Final

from neurons.ledger.copies import clean
from neurons.ledger.dataset import yesterday
from neurons.ledger.errors import LedgerError, NotFound
from neurons.ledger.handover import DAYS, MOST_DAYS, MOST_TWINS_BYTES, days_until, hand_over, twins_of
from neurons.ledger.learned import learned
from neurons.ledger.ledger import Ledger, now_ms
from neurons.ledger.migrate import migrate
from neurons.ledger.records import Twin
from neurons.ledger.retention import Retention
from neurons.store import StoreError, join, open_store

URL_VARIABLE: Final = "LEDGER_URL"
OWNER_URL_VARIABLE: Final = "LEDGER_OWNER_URL"
"""Of `migrate`: by a role that may make tables, where the one of LEDGER_URL may not."""
_SECONDS: Final = 60.0
"""A person can wait longer than a patient."""
DEFAULT_URL: Final = "sqlite:////var/lib/ledger/ledger.db"
_LONG_SECONDS: Final = 300.0
"""One twin's day is read and noted in one transaction, however many talked to it."""
_FIRST_YEAR: Final = 1970
_MOST_RETAINED: Final = 36_500
_TOLD: Final = 5
"""Of those twins of which something couldn't be done, so many are named in the message."""
_EPILOG: Final = f"""\
The ledger's address is --url, or ${URL_VARIABLE}, or
{DEFAULT_URL};
of migrate --url, or ${OWNER_URL_VARIABLE}, or else as of the others.
What was done is written to standard output as one JSON document. Exit status:
0 done, 1 not done (standard error says why), 2 the command line is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    run: Callable[[str, argparse.Namespace], Awaitable[Any]] = given.run
    owner = os.environ.get(OWNER_URL_VARIABLE) if run is _migrate else None
    url: str = given.url or owner or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    try:
        done = asyncio.run(_finish(run(url, given)))
    except (LedgerError, StoreError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if done is not None:
        sys.stdout.write(json.dumps(done, indent=2, ensure_ascii=False) + "\n")
    failed = done.get("failed") if isinstance(done, dict) else None
    if failed:
        sys.stdout.flush()
        told = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items())[:_TOLD])
        sys.stderr.write(f"error: not done for {len(failed)} twins: {told}\n")
        return 1
    return 0


async def _finish(work: Awaitable[Any]) -> Any:
    return await work


async def _migrate(url: str, _given: argparse.Namespace) -> Any:
    await migrate(url)
    return {"migrated": True}


async def _erase(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        patient_id = given.patient
        if given.session is not None:
            patient_id = await ledger.patient_of(session_id=given.session)
            # Its sessions go first: a command that is interrupted can be repeated by this id alone.
            sys.stderr.write(f"note: that session is of patient {patient_id}; to repeat this, give that id.\n")
        erased = await ledger.erase(patient_id=patient_id)
    if not erased.known:
        sys.stderr.write(
            "note: the ledger has never had anything of this patient; is the id right? "
            "What still comes under it will be dropped.\n"
        )
    ids = {line.line_id for line in erased.lines}
    cleaned = {uri: [asdict(each) for each in await clean(uri, ids)] for uri in given.datasets}
    return asdict(erased) | {"cleaned": cleaned}


async def _recall(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        lines = await ledger.recalled()
    ids = {line.line_id for line in lines}
    cleaned = {uri: [asdict(each) for each in await clean(uri, ids)] for uri in given.datasets}
    return {"lines": [asdict(line) for line in lines], "cleaned": cleaned}


async def _retrain(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        for digest in given.done:
            await ledger.retrained(adapter_digest=digest)
        return {"retrain": [asdict(each) for each in await ledger.to_retrain()]}


async def _learned(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        twin = await _twin(ledger, given.twin)
        trainings = await learned(given.store, twin=twin, folder=given.folder or twin.name, at_ms=now_ms())
        written = await ledger.record(*trainings)
        return {"new": written.new, "known": written.known}


async def _retain(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        retention = Retention(conversations_days=given.conversations_days, rounds_days=given.rounds_days)
        return {"removed": await ledger.retain(retention)}


async def _backup(url: str, given: argparse.Namespace) -> Any:
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        return {"rows": await ledger.backup(given.file), "file": str(given.file)}


async def _restore(url: str, given: argparse.Namespace) -> Any:
    await migrate(url)
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        return asdict(await ledger.restore(given.file))


async def _dataset(url: str, given: argparse.Namespace) -> Any:
    day = yesterday(zone=given.zone) if given.day == "yesterday" else date.fromisoformat(given.day)
    async with await Ledger.open(url, timeout_seconds=_SECONDS) as ledger:
        twin = await _twin(ledger, given.twin)
        made = await ledger.dataset(twin_uid=twin.uid, day=day, zone=given.zone)
    where: str | None = None
    if given.out == "-":
        sys.stdout.buffer.write(made.data)
        sys.stdout.buffer.flush()
        return None
    if made.lines and given.store is not None:
        folder = join(given.store, twin.name, "interactions")
        where = join(folder, f"{day.isoformat()}.jsonl")
        await open_store(folder, create=True).put(f"{day.isoformat()}.jsonl", made.data)
    elif given.out is not None:
        where = given.out
        await asyncio.to_thread(_write_alone, Path(given.out), made.data)
    return {
        "twin": twin.name, "uid": twin.uid, "day": day.isoformat(), "lines": made.lines, "digest": made.digest,
        "leftOut": made.left_out, "written": where,
    }  # fmt: skip


def _write_alone(path: Path, data: bytes) -> None:
    """Write a file that nobody else on this machine reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


async def _datasets(url: str, given: argparse.Namespace) -> Any:
    last = yesterday(zone=given.zone) if given.day == "yesterday" else date.fromisoformat(given.day)
    file: Path | None = given.twins_file
    named = twins_of(await asyncio.to_thread(_document, file)) if file is not None else None
    async with await Ledger.open(url, timeout_seconds=_LONG_SECONDS) as ledger:
        twins = await ledger.twins() if named is None else named
        _each_name_once(twins)
        days = days_until(last, given.days)
        handed = await hand_over(
            ledger, twins=twins, store=given.store, days=days, zone=given.zone, hold_out=given.hold_out
        )
    return {
        "store": given.store, "from": days[0].isoformat(), "to": days[-1].isoformat(), "files": {
            "written": handed.written, "unchanged": handed.unchanged, "deleted": handed.deleted,
        },
        "lines": handed.lines, "leftOut": dict(sorted(handed.left_out.items())), "takenOut": handed.taken_out,
        "failed": handed.failed,
    }  # fmt: skip


def _document(path: Path) -> bytes:
    with path.open("rb") as file:
        document = file.read(MOST_TWINS_BYTES + 1)
    if len(document) > MOST_TWINS_BYTES:
        raise LedgerError(f"{path} has more than {MOST_TWINS_BYTES >> 20} MiB, as no file of twins has.")
    return document


def _each_name_once(twins: Sequence[Twin]) -> None:
    names = Counter(twin.name for twin in twins)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise LedgerError(
            f"{len(twice)} names have been those of several twins ({', '.join(twice[:_TOLD])}): whose conversations "
            "are meant must be clear. Give --twins-file with the UIDs."
        )


async def _twin(ledger: Ledger, wanted: str) -> Twin:
    """Return the twin of this UID or name."""
    twins = await ledger.twins()
    named = {twin.uid: twin for twin in twins if wanted in (twin.uid, twin.name)}
    if not named:
        known = ", ".join(sorted({twin.name for twin in twins})) or "none"
        raise NotFound(f"No patient has talked to a twin {wanted}. Known are: {known}.")
    if len(named) > 1:
        raise NotFound(f"{len(named)} twins have been called {wanted}. Give the UID: {', '.join(sorted(named))}.")
    return next(iter(named.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neurons.ledger",
        description="The validator's ledger.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--url", help="the ledger's address")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., Any], told: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    command("migrate", _migrate, "make or change the tables for this release")
    erase = command("erase", _erase, "erase a patient, and name the lines and adapters concerned")
    who = erase.add_mutually_exclusive_group(required=True)
    who.add_argument("patient", type=_uuid, nargs="?", help="the patient's opaque id, a UUID")
    who.add_argument("--session", metavar="ID", type=_uuid, help="the patient who has this session")
    recall = command("recall", _recall, "list exported lines of patients who were erased or withdrew consent")
    for each in (erase, recall):
        each.add_argument(
            "--datasets", metavar="URI", action="append", default=[], help="take the lines out of all *.jsonl below"
        )
    retrain = command("retrain", _retrain, "list adapters to be trained again, with their clean ancestors")
    retrain.add_argument("--done", metavar="DIGEST", action="append", default=[], help="this one was replaced")
    lineage = command("lineage", _learned, "take what adapters learned from the store into the ledger")
    lineage.add_argument("--twin", required=True, help="name or UID")
    lineage.add_argument("--store", metavar="URI", required=True, help="the adapter store")
    lineage.add_argument("--folder", help="the twin's folder in the store (default: its name)")
    retain = command("retain", _retain, "delete what is older than agreed")
    retain.add_argument("--conversations-days", type=_days, default=365, help="or `forever` (default: 365)")
    retain.add_argument("--rounds-days", type=_days, default=180, help="or `forever` (default: 180)")
    for name, run, told in (
        ("backup", _backup, "write everything into one file"),
        ("restore", _restore, "write a backup's rows into this ledger; later erasures and withdrawals hold"),
    ):
        command(name, run, told).add_argument("file", type=Path)
    dataset = command("dataset", _dataset, "turn one day of a twin into a dataset")
    dataset.add_argument("--twin", required=True, help="name or UID")
    dataset.add_argument("--day", type=_day, default="yesterday", help="YYYY-MM-DD, or yesterday (default)")
    dataset.add_argument("--zone", type=_zone, default="UTC", help="time zone of the day (default: UTC)")
    to = dataset.add_mutually_exclusive_group()
    to.add_argument("--out", metavar="FILE", help="write it there, or to standard output (-)")
    to.add_argument("--store", metavar="URI", help="write it to <store>/<twin>/interactions/<day>.jsonl")
    datasets = command(
        "datasets", _datasets, "put the latest days of all twins where fine-tunes read them, and take out what was "
        "taken back",
    )  # fmt: skip
    datasets.add_argument("--store", metavar="URI", required=True, help="as <store>/<twin>/interactions/<day>.jsonl")
    datasets.add_argument(
        "--twins-file", metavar="FILE", type=Path, help="a gateway's: these twins alone (default: all in the ledger)"
    )
    datasets.add_argument("--day", type=_day, default="yesterday", help="the last day (default: yesterday)")
    datasets.add_argument(
        "--days", type=_few, default=DAYS, help=f"that day and those before it, 1 to {MOST_DAYS} (default: {DAYS})"
    )
    datasets.add_argument("--zone", type=_zone, default="UTC", help="time zone of the days (default: UTC)")
    datasets.add_argument(
        "--hold-out", action="store_true", help="leave out the patients by whom miners' versions are examined"
    )
    return parser


def _few(given: str) -> int:
    count = int(given)
    if not 1 <= count <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{given} is none of 1 to {MOST_DAYS} days")
    return count


def _days(given: str) -> int | None:
    if given == "forever":
        return None
    if not 1 <= int(given) <= _MOST_RETAINED:
        raise argparse.ArgumentTypeError(f"{given} is none of 1 to {_MOST_RETAINED} days, nor `forever`")
    return int(given)


def _day(given: str) -> str:
    if given == "yesterday":
        return given
    day = date.fromisoformat(given)
    if not _FIRST_YEAR <= day.year < date.max.year:
        raise argparse.ArgumentTypeError(f"{given} is no day of a ledger")
    return day.isoformat()


def _uuid(given: str) -> str:
    try:
        found = str(uuid.UUID(given.strip()))
    except ValueError:
        found = ""
    if found != given.strip().lower():
        raise argparse.ArgumentTypeError("this is no UUID, as every id in the ledger is one")
    return found


def _zone(given: str) -> str:
    try:
        yesterday(zone=given)
    except (KeyError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{given} is no time zone, as Asia/Kathmandu is one") from None
    return given


if __name__ == "__main__":
    sys.exit(main())
