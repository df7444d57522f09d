"""The examiner's arguments: what it examines, against whom, and with what."""

from __future__ import annotations

import argparse
from typing import Final

from bettertherapy_api.examination import BASE
from neurons.arguments import filled, filled_path
from neurons.scoring.contrasts import Language
from neurons.trainer.arguments import add_base, add_progress, digest, name, positive

ANSWER_TOKENS: Final = 256
"""As many as `kubectl twin ask` asks for. What a version would say after them is examined by nobody."""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    program = argparse.ArgumentParser(
        prog="python -m neurons.examiner", description="Examine the version that a fine-tune published."
    )
    program.add_argument("--run", required=True, type=name, metavar="NAME", help="the FineTuneRun's name")
    program.add_argument("--run-uid", required=True, type=filled, metavar="UID", help="the FineTuneRun's UID")
    add_base(program)
    program.add_argument("--child-digest", required=True, type=digest, metavar="sha256:…", help="the version")
    program.add_argument(
        "--parent-uri", type=filled, metavar="URI", help="what it is compared with; absent: the base model itself"
    )
    program.add_argument("--parent-digest", type=digest, metavar="sha256:…")
    program.add_argument(
        "--anchor", type=_anchor, metavar="sha256:…|base",
        help="the version last chosen by a person, where it is not the parent",
    )  # fmt: skip
    program.add_argument("--anchor-uri", metavar="URI", help="where that one is; the base model needs none")
    program.add_argument("--eval-uri", type=filled, metavar="URI", help="the twin's held-out items, a JSONL file")
    program.add_argument("--eval-digest", type=digest, metavar="sha256:…")
    program.add_argument(
        "--languages", type=_languages, metavar="en,ne", help="of the safety items to ask; absent: all that there are"
    )
    program.add_argument("--system-prompt-file", type=filled_path, metavar="FILE", help="the twin's system prompt")
    program.add_argument("--answer-tokens", type=positive, default=ANSWER_TOKENS, help="longest answer to an item")
    program.add_argument(
        "--kept", type=filled_path, metavar="DIR", help="where answers are kept for the next examination"
    )
    program.add_argument(
        "--safety-uri", type=filled, metavar="URI", help="safety items of the platform's own, a JSONL file"
    )
    program.add_argument("--safety-digest", type=digest, metavar="sha256:…")
    adopted = program.add_argument_group("a version that somebody else trained (neurons.examiner.adopting)")
    adopted.add_argument("--trained-by", type=name, metavar="NAME", help="the run that its manifest must name")
    adopted.add_argument(
        "--dataset-digest",
        type=digest,
        metavar="sha256:…",
        help="what it was given to learn, whatever its manifest says",
    )
    adopted.add_argument(
        "--held-out-digest", type=digest, metavar="sha256:…", help="conversations that its trainer was not given"
    )
    _add_judge(program)
    add_progress(program)
    program.add_argument("--work-dir", type=filled_path, metavar="DIR", help="scratch space")
    return program


def _add_judge(program: argparse.ArgumentParser) -> None:
    """Add who grades what is in words."""
    program.add_argument("--judge-endpoint", type=filled, metavar="URL", help="an OpenAI-compatible server, with /v1")
    program.add_argument(
        "--judge-model", dest="judge_models", action="append", default=[], type=filled, metavar="NAME",
        help="one, asked in two ways, or several that have to agree",
    )  # fmt: skip
    program.add_argument("--judge-version", type=filled, metavar="NAME", help="what answers under that name, if known")
    program.add_argument("--judge-key-file", type=filled_path, metavar="FILE", help="the server's key")
    program.add_argument("--judge-language", default="en", type=filled, metavar="en", help="of the twin's own items")
    program.add_argument("--judge-seconds", type=positive, default=3600, help="for all questions about answers")
    program.add_argument("--judge-concurrency", type=positive, default=8, help="questions in flight at once")
    program.add_argument("--no-judge", type=filled, metavar="WHY", help="why the judge that is named is not asked")


def _languages(value: str) -> frozenset[Language]:
    try:
        return frozenset(Language(each) for each in value.split(","))
    except ValueError as error:
        known = ", ".join(each.value for each in Language)
        raise argparse.ArgumentTypeError(f"{value!r}: there are safety items in {known} alone") from error


def _anchor(value: str) -> str:
    return value if value == BASE else digest(value)
