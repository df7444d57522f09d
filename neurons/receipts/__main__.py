"""`python -m neurons.receipts verify RECEIPT`: prove offline which weights answered; `kubectl twin verify` runs it."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from bettertherapy_api import names
from neurons.arguments import filled, filled_path
from neurons.receipts import digests, report
from neurons.receipts.metagraph_file import MetagraphFileError, read_metagraph
from neurons.receipts.receipt import ReceiptError, decode
from neurons.receipts.verification import Expected, proves, verify

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_EPILOG: Final = """\
RECEIPT is the value of the header x-bettertherapy-receipt, or what stands under
bettertherapy.receipt in the last event of a stream. It, the question and the
answer may each be given as @FILE, or - for standard input.

A question file holds the text of one message, or JSON: the request's body, or
its list of messages. An answer file holds the answer's text, byte for byte.

Exit status: 0 nothing that was asked fails, 1 something does, 2 nothing could
be checked.
"""


_HALF: Final = re.compile("[\ud800-\udfff]")
_SS58: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,64}")
_BEFORE: Final = re.compile(rf"^({names.RECEIPT_HEADER}|data)\s*:\s*", re.IGNORECASE)
"""What stands before a receipt in a header or in an event."""


class UsageError(ValueError):
    """What was given can't be used; the message is a sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        _read_once([given.receipt, given.question, *(given.answer or [])])
        receipt = decode(_copied(_text(given.receipt)))
        expected = Expected(
            question=_question(_text(given.question)) if given.question is not None else None,
            answer=_answer([_text(answer) for answer in given.answer]) if given.answer else None,
            twin=given.twin,
            adapter=_adapter(given.adapter),
            hotkey=_hotkey(given.hotkey),
            metagraph=read_metagraph(given.metagraph) if given.metagraph is not None else None,
        )
        checks = verify(receipt, expected, now_ms=_moment(given.at))
    except (ReceiptError, MetagraphFileError, UsageError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if given.output == "json":
        sys.stdout.write(json.dumps(report.json_report(receipt, checks), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(report.text_report(receipt, checks))
    return 0 if proves(checks) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubectl twin",
        description="Check receipts of answers, without a network.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made = parser.add_subparsers(required=True, metavar="verify").add_parser(
        "verify",
        help="prove offline which weights answered",
        description="Prove offline which doctor's weights gave an answer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("receipt", type=filled, metavar="RECEIPT", help="the receipt, @FILE, or - for standard input")
    made.add_argument("--question", metavar="TEXT", help="what was asked: a text, or @FILE")
    made.add_argument(
        "--answer", metavar="TEXT", action="append", help="what arrived: a text, or @FILE; once for each choice"
    )
    made.add_argument("--twin", type=filled, metavar="NAME", help="the twin that was asked")
    made.add_argument("--adapter", type=filled, metavar="DIGEST", help="the version that should have answered, or base")
    made.add_argument("--hotkey", type=filled, metavar="SS58", help="the miner that was asked")
    made.add_argument(
        "--metagraph", metavar="FILE", type=filled_path, help="who is on the subnet: see docs/receipts.md"
    )
    made.add_argument("--at", type=filled, metavar="TIME", help="take this for now (RFC 3339)")
    made.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    return parser


def _read_once(given: Sequence[str | None]) -> None:
    times = given.count("-")
    if times > 1:
        raise UsageError(
            f"- is given {times} times, and standard input is read once: give the others as texts, or as @FILE."
        )


def _copied(text: str) -> str:
    """Return the receipt out of what was copied with it.

    That is the header's name, quotation marks, line breaks of a terminal, or the JSON in which it stands: an event's,
    or what `python -m neurons.subnet ask -o json` prints.
    """
    text = text.strip().strip("'\"").strip()
    text = _BEFORE.sub("", text)
    if not text.startswith("{"):
        return "".join(text.strip("'\"").split())
    try:
        document = json.loads(text)
    except (RecursionError, ValueError):
        return text
    if not isinstance(document, dict) or "signature" in document:
        return text
    beside = document.get("bettertherapy")
    found = (beside if isinstance(beside, dict) else document).get("receipt")
    if not isinstance(found, str):
        raise UsageError(
            "This is no receipt: it is a document of another kind. Give the value of the header "
            "x-bettertherapy-receipt, or what stands under bettertherapy.receipt in the last event of a stream."
        )
    return found


def _text(given: str) -> str:
    """Return what was given itself, in a file, or on standard input; bytes that are no UTF-8 are refused."""
    if given == "-":
        data, what = sys.stdin.buffer.read(MAX_FILE_BYTES + 1), "standard input"
    elif given.startswith("@"):
        what = given[1:]
        if not what:
            raise UsageError("@ names no file: write @FILE, without a space between.")
        try:
            with Path(what).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise UsageError(f"{what} can't be read: {error.strerror}.") from None
    elif _is_file(given):
        raise UsageError(
            f"{given} is a file: give @{given} for what it holds, or the text itself on standard input, as -."
        )
    else:
        return given
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{what} has more than {MAX_FILE_BYTES} bytes: it is something else.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not UTF-8: give the text as it arrived.") from None


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # too long for a name, or none at all
        return False


def _question(text: str) -> str:
    """Return the digest of a text, of a list of messages, or of a request's body."""
    if not text.strip():
        raise UsageError("--question is empty: give what was asked, or leave it out.")
    if _HALF.search(text):
        raise UsageError("The question can't be compared: it is not text.")
    try:
        document = _json(text)
        messages = document.get("messages") if isinstance(document, dict) else document
        if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
            return digests.question_of_messages(messages)
        if isinstance(document, dict) and "prompt" in document:
            return digests.question_of_prompt(document["prompt"])
        if isinstance(document, dict) and "input" in document:
            return digests.question_of_input(document)
        return digests.question_of_text(text)
    except (RecursionError, ValueError):
        raise UsageError("The question can't be compared: it is nested too deep.") from None


def _json(text: str) -> Any:
    """Return a document as a miner reads it, None for what is none: without a mark at its beginning, half a character
    replaced, and an integer that is too great as a float.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return orjson.loads(_HALF.sub("\ufffd", json.dumps(json.loads(text), ensure_ascii=False)))
    except ValueError:
        return None


def _answer(texts: Sequence[str]) -> str:
    try:
        return digests.answer_of(texts)
    except ValueError:
        raise UsageError("The answer can't be compared: it is not text.") from None


def _adapter(given: str | None) -> str | None:
    if given is None or given == "base" or names.is_digest(given):
        return given
    raise UsageError(
        f"--adapter {given[:80]} is no digest: give sha256: and 64 hex digits, as `kubectl get twin NAME -o "
        "jsonpath={.status.activeVersion.digest}` prints it, or base."
    )


def _hotkey(given: str | None) -> str | None:
    if given is None or _SS58.fullmatch(given):
        return given
    raise UsageError(
        f"--hotkey {given[:80]} is no ss58 address: give the whole hotkey, as `kubectl twin miners -o wide` prints it."
    )


def _moment(at: str | None) -> int:
    if at is None:
        return time.time_ns() // 1_000_000
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(f"--at {at[:60]} is no time: write it like 2026-01-31T12:00:00Z.")
    return int(moment.timestamp() * 1000)


if __name__ == "__main__":
    sys.exit(main())
