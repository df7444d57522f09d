"""What is wrong with somebody else's document is said without a character that a terminal would obey."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from bettertherapy_api.examination import read_outcomes
from bettertherapy_api.faults import first_fault
from bettertherapy_api.round_progress import RoundProgress, read_document
from bettertherapy_api.run_progress import read_progress
from neurons.ledger.errors import BadRecord
from neurons.ledger.handover import twins_of
from neurons.lessons.file import LessonsError, read_pointer
from neurons.scoring import ItemError, parse_items
from twin_operator.domain.objects import parsed

CURSOR = "\x1b[2J\u202e"
HOSTILE = '{"\\u001b[2J\\u202e": 1}'


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def refused_by(read: Callable[[], object], kind: type[Exception]) -> str:
    with pytest.raises(kind) as refused:
        read()
    return str(refused.value)


@pytest.mark.parametrize(
    "say",
    [
        lambda: read_progress(HOSTILE),
        lambda: read_outcomes(HOSTILE),
        lambda: read_document(RoundProgress, HOSTILE),
        lambda: parsed(Strict, {CURSOR: 1}),
        lambda: refused_by(lambda: twins_of(HOSTILE.encode()), BadRecord),
        lambda: refused_by(lambda: parse_items(HOSTILE.encode()), ItemError),
        lambda: refused_by(lambda: read_pointer(HOSTILE.encode()), LessonsError),
    ],
)
def test_a_members_name_moves_no_cursor(say: Callable[[], object]) -> None:
    said = say()
    assert isinstance(said, str)
    assert said.isprintable(), repr(said)


def test_the_document_itself_has_a_name() -> None:
    with pytest.raises(ValidationError) as refused:
        Strict.model_validate([])
    assert first_fault(refused.value, whole="the file").startswith("the file: ")
