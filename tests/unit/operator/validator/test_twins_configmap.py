"""ConfigMap V-gateway-twins, and which weights may answer: the gateway's own reader reads what is published."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettertherapy_api import names
from neurons.validator.gateway.twins import TwinsFile
from tests.unit.operator.documents import WORDS, anything
from tests.unit.operator.samples import digest, twin
from tests.unit.operator.validator.validators import validator
from twin_operator.domain.answering import MAX_BYTES, Answering, KnownTwin, fitting, kept, known_twin, may_answer
from twin_operator.domain.objects import Unreadable
from twin_operator.kinds.validator.twins_configmap import build_twins_configmap, twins_in

UID = "3f2504e0-4f89-41d3-9a0c-0305e82c33{:02d}"


def version(letter: str) -> dict[str, Any]:
    return {"digest": digest(letter), "servedName": f"dr-a-{letter * 8}", "uri": f"pvc://s/{letter}", "rank": 8}


def status(**parts: Any) -> dict[str, Any]:
    return {"specDigest": digest("a"), **parts}


def known(number: int, *digests: str, name: str | None = None) -> KnownTwin:
    return KnownTwin(name=name or f"dr-{number}", uid=UID.format(number), doctor="डा. Ä", digests=digests or ("base",))


def published(answering: Answering, *, owner: str = "uid-v") -> dict[str, Any]:
    made = build_twins_configmap(validator(), answering)
    return {**made, "metadata": {**made["metadata"], "ownerReferences": [{"controller": True, "uid": owner}]}}


def test_the_gateway_reads_what_the_operator_publishes() -> None:
    answering = Answering(twins=(known(1), known(2, digest("a"), digest("b"))))
    read = TwinsFile.model_validate_json(published(answering)["data"][names.TWINS_FILE])
    assert [(each.name, each.uid, each.doctor, each.digests) for each in read.twins] == [
        (each.name, each.uid, each.doctor, each.digests) for each in answering.twins
    ]
    assert TwinsFile.model_validate_json(Answering(twins=()).document()).twins == ()


def test_pages_are_told_of_a_doctors_licence_and_specialty_and_other_gateways_are_not() -> None:
    doctor = {"name": "Dr. Gurung", "licence": "NPI 1234567893", "specialty": "General practice"}
    told = known_twin(twin(doctor=doctor), with_pages=True)
    shown = Answering(twins=(told.model_copy(update={"uid": UID.format(1)}),))
    [read] = TwinsFile.model_validate_json(published(shown)["data"][names.TWINS_FILE]).twins
    assert (read.doctor, read.licence, read.specialty) == tuple(doctor.values())
    assert twins_in(published(shown), owner="uid-v") == {each.uid: each for each in shown.twins}
    assert "NPI" not in Answering(twins=(known_twin(twin(doctor=doctor)),)).document()


def test_a_twin_that_was_just_made_answers_by_its_adapter_or_the_base() -> None:
    assert may_answer(twin()) == (digest("a"),)
    assert may_answer(twin(adapter=None)) == ("base",)


def test_the_version_that_answers_the_one_that_should_and_the_one_on_trial_may_answer() -> None:
    found = twin(status=status(activeVersion=version("a"), promotedVersion=version("b"), canaryVersion=version("c")))
    assert set(may_answer(found)) == {digest("a"), digest("b"), digest("c")}


def test_what_was_replaced_may_not_answer_any_more() -> None:
    found = twin(
        status=status(
            activeVersion=version("b"), promotedVersion=version("b"), previousVersion=version("a"),
            history=[version("a")], pendingVersion=version("d"),
        )
    )  # fmt: skip
    assert may_answer(found) == (digest("b"),)


def test_what_was_refused_or_is_being_taken_back_may_not_answer() -> None:
    refused = {"digest": digest("c"), "reason": "RolledBack", "message": "m", "time": "2026-01-01T00:00:00Z"}
    found = twin(status=status(activeVersion=version("c"), refusedVersions=[refused]))
    assert may_answer(found) == (digest("a"),)
    told = twin(status=status(activeVersion=version("a"), canaryVersion=version("c")))
    back = type(told)(**{**told.__dict__, "annotations": {names.ROLLBACK_ANNOTATION: digest("a")}})
    assert may_answer(told) == (digest("a"), digest("c"))
    assert may_answer(back) == (digest("a"),)


def test_a_twin_that_can_not_be_read_keeps_what_may_still_answer() -> None:
    found = Unreadable(part="spec", problem="p", taken_back=frozenset({digest("b")}))
    assert kept(known(1, digest("a"), digest("b")), found).digests == (digest("a"),)


def test_what_is_kept_of_a_twin_is_written_as_it_is_now() -> None:
    former = known(1, digest("a"), digest("b")).model_copy(update={"licence": "L1", "specialty": "General practice"})
    assert digest("b") in former.line
    found = Unreadable(part="spec", problem="p", taken_back=frozenset({digest("b")}))
    assert digest("b") not in kept(former, found, with_pages=True).line
    assert kept(former, found, with_pages=True).licence == "L1"
    alone = kept(former, found)
    assert (alone.licence, alone.specialty) == (None, None)


def test_known_twins_keep_their_place_when_there_is_no_room_for_all() -> None:
    one = len(known(1).to_json().encode()) + 2
    room = len(Answering(twins=()).document()) + 2 * one
    found = fitting([known(1), known(2), known(3)], known={UID.format(3): known(3)}, most=room)
    assert [each.name for each in found.twins] == ["dr-1", "dr-3"]
    assert found.left_out == ("dr-2",)
    assert len(found.document().encode()) <= room


def test_a_twin_that_the_gateway_knows_is_not_put_out_by_another_ones_trial() -> None:
    """Its patients would be turned away for as long as somebody else's version is tried."""
    full = {each.uid: each for each in (known(1, digest("a")), known(2, digest("a")))}
    most = len(Answering(twins=tuple(full.values())).document().encode())
    tried = known(1, digest("a"), digest("b"))
    found = fitting([tried, full[UID.format(2)], known(3)], known=full, most=most)
    assert [each.name for each in found.twins] == ["dr-1", "dr-2"]
    assert found.left_out == ("dr-3",)


def test_what_the_gateway_knows_may_grow_as_long_as_a_configmap_holds_it() -> None:
    many = [known(1, *map(digest, "abc"), name=f"dr-{number:05d}") for number in range(4000)]
    numbered = [each.model_copy(update={"uid": f"{number:08d}{each.uid[8:]}"}) for number, each in enumerate(many)]
    found = fitting(numbered, known={each.uid: each for each in numbered})
    assert MAX_BYTES < len(found.document().encode()) <= 2**20 - len(names.TWINS_FILE)
    assert found.left_out == tuple(each.name for each in numbered[len(found.twins) :])


def test_several_thousand_twins_fit_into_a_configmap() -> None:
    many = [known(1, digest("a"), digest("b"), name=f"dr-{number:05d}") for number in range(5000)]
    found = fitting(many, known={})
    assert 2000 < len(found.twins) < 5000
    assert len(found.document().encode()) <= MAX_BYTES


def test_what_is_published_is_read_back_for_its_own_validator_alone() -> None:
    answering = Answering(twins=(known(1), known(2, digest("a"))))
    assert twins_in(published(answering), owner="uid-v") == {each.uid: each for each in answering.twins}
    assert twins_in(published(answering), owner="uid-of-another") == {}
    assert twins_in(None, owner="uid-v") == {}


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(max_size=20) | anything.map(json.dumps)
    | st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(WORDS), "uid": st.sampled_from(WORDS)},
                              optional={"doctor": anything, "digests": anything}),
        max_size=3,
    ).map(lambda twins: json.dumps({"twins": twins})),
)  # fmt: skip
def test_whatever_stands_there_reading_it_raises_nothing(text: str) -> None:
    odd = published(Answering(twins=()))
    found = twins_in({**odd, "data": {names.TWINS_FILE: text}}, owner="uid-v")
    assert all(isinstance(each, KnownTwin) for each in found.values())


@pytest.mark.parametrize("data", [None, {}, {"other": "x"}, {names.TWINS_FILE: 7}])
def test_a_configmap_without_the_file_says_nothing(data: Any) -> None:
    assert twins_in({**published(Answering(twins=())), "data": data}, owner="uid-v") == {}


def test_equal_twins_give_equal_bytes() -> None:
    made = twin()
    assert Answering(twins=(known_twin(made),)).document() == Answering(twins=(known_twin(made),)).document()
