"""Asking through a validator's gateway: the key, the pod, who answered, how all did, and what the receipt proves."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from typing import Any

import pytest

from kubectl_twin.ask import Question
from kubectl_twin.commands.twins import ask_command
from kubectl_twin.errors import TwinCliError
from kubectl_twin.gateway import KEY_VARIABLE, GatewayAnswer, ask_through, gateway_pod
from kubectl_twin.proof import Answered, Proof, prove
from kubectl_twin.render_gateway import answer_line, gateway_footer
from kubectl_twin.terminal import console
from neurons.receipts import ReceiptSigner, answer_of, question_of_messages
from tests.unit.receipts.keyring import key

from .objects import DIGEST, Json, secret, serving_twin
from .objects import miner_pod as pod
from .test_ask import BASE, CORE, FakeApi

ALICE = key("Alice")
MESSAGES = [{"role": "user", "content": "What now?"}]
TEXT = "Drink water."


def receipt(text: str = TEXT, *, twin: str = "dr-gurung", signer: Any = ALICE) -> str:
    return ReceiptSigner(signer).sign(
        question=question_of_messages(MESSAGES), answer=answer_of([text]), choices=1, twin=twin, adapter=DIGEST,
        base={"name": "base", "revision": None, "digest": None}, time_ms=time.time_ns() // 10**6,
    )  # fmt: skip


def more(**changes: Any) -> Json:
    """What a gateway says under `bettertherapy`."""
    return {
        "sessionId": "s", "questionId": "q", "answerId": "a", "twin": "dr-gurung", "minersAsked": 3, "minersProven": 2,
        "notice": None, "adapter": DIGEST, "servedName": "dr-gurung-ab12ab12", "score": 0.93, "receipt": receipt(),
        "miner": {"hotkey": ALICE.ss58_address, "uid": 7, "registeredAt": 1},
        "ranking": [
            {"uid": 7, "hotkey": ALICE.ss58_address, "score": 0.93, "seconds": 1.25},
            {"uid": 8, "hotkey": key("Charlie").ss58_address, "score": 0.41, "seconds": 2.5},
            {"uid": 9, "hotkey": key("Dave").ss58_address, "failure": "late", "seconds": 30.0},
        ],
        **changes,
    }  # fmt: skip


def stream(extension: Json, *texts: str) -> bytes:
    """A gateway's stream: comments while it compares, the text in pieces, and at last who gave it."""
    events: list[Json] = [{"choices": [{"delta": {"content": text}}]} for text in texts or ("Drink ", "water.")]
    events += [
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"completion_tokens": 3}},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "bettertherapy": extension},
    ]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    return f"{head}: comparing answers\n\n: comparing answers\n\n{lines}data: [DONE]\n\n".encode()


@pytest.fixture
def objects() -> dict[str, Any]:
    return {
        f"{BASE}/validators/desk": {"spec": {"gateway": {"replicas": 1}}},
        f"{BASE}/doctortwins/dr-gurung": serving_twin(),
        f"{BASE}/doctortwins": {"items": [serving_twin()]},
        f"{CORE}/secrets/desk-gateway-keys": secret(key="bt-k3y"),
        f"{CORE}/pods": {"items": [pod("down", ready=False), pod("desk-gateway-1", ready=True)]},
    }


def asked(api: FakeApi, **changes: Any) -> tuple[GatewayAnswer, list[str]]:
    heard: list[str] = []
    values = {"twin": "dr-gurung", "text": "What now?", "namespace": "clinic", "timeout_seconds": 10.0}
    environ = changes.pop("environ", {})
    question = Question(**(values | changes))  # type: ignore[arg-type]
    return ask_through(api, question, validator="desk", on_text=heard.append, environ=environ), heard


def test_the_answer_streams_and_says_who_gave_it_and_how_the_others_did(objects: dict[str, Any]) -> None:
    answer, heard = asked(FakeApi(objects, far_end=stream(more())))
    assert heard == ["Drink ", "water."]
    assert (answer.said, answer.doctor, answer.uid, answer.hotkey) == (TEXT, "Dr. Indra Gurung", 7, ALICE.ss58_address)
    assert (answer.adapter_digest, answer.score, answer.tokens) == (DIGEST, 0.93, 3)
    assert [(each.uid, each.score, each.failure) for each in answer.results] == [
        (7, 0.93, None), (8, 0.41, None), (9, None, "late"),
    ]  # fmt: skip
    assert (answer.session_id, answer.answer_id, answer.question_id) == ("s", "a", "q")
    assert answer.proof == Proof(True)


def test_the_request_goes_to_the_gateway_with_the_key_of_its_secret_and_begins_a_conversation(
    objects: dict[str, Any],
) -> None:
    api = FakeApi(objects, far_end=stream(more()))
    asked(api, temperature=0.0)
    head, _, body = api.received.partition(b"\r\n\r\n")
    assert b"Authorization: Bearer bt-k3y" in head
    assert b"x-session-id" not in head.lower(), "a gateway takes no session's name that it has not given"
    sent = json.loads(body)
    assert (sent["model"], sent["messages"], sent["stream"], sent["temperature"]) == ("dr-gurung", MESSAGES, True, 0.0)


def test_a_key_of_the_environment_goes_first(objects: dict[str, Any]) -> None:
    del objects[f"{CORE}/secrets/desk-gateway-keys"]
    api = FakeApi(objects, far_end=stream(more()))
    asked(api, environ={KEY_VARIABLE: "bt-mine"})
    assert b"Authorization: Bearer bt-mine" in api.received


def test_without_streaming_the_same_is_read_from_the_document(objects: dict[str, Any]) -> None:
    choice = {"message": {"content": TEXT}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}, "bettertherapy": more()}).encode()
    api = FakeApi(objects, far_end=b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    answer, heard = asked(api, stream=False)
    assert heard == [TEXT]
    assert (answer.uid, answer.proof) == (7, Proof(True))


def test_words_that_the_receipt_does_not_cover_are_found_out(objects: dict[str, Any]) -> None:
    answer, _ = asked(FakeApi(objects, far_end=stream(more(), "Drink ", "whisky.")))
    assert answer.proof == Proof(False, ("answer",))
    other, _ = asked(FakeApi(objects, far_end=stream(more(receipt=receipt(signer=key("Charlie"))))))
    assert other.proof is not None
    assert (other.proof.proven, other.proof.failed) == (False, ("miner",))


def test_a_notice_is_the_gateways_and_not_covered_by_the_receipt(objects: dict[str, Any]) -> None:
    notice = "Call 102 now.\n\n"
    given = more(notice={"kinds": ["heart"], "language": "en", "characters": len(notice)})
    answer, _ = asked(FakeApi(objects, far_end=stream(given, notice, "Drink ", "water.")))
    assert (answer.text, answer.said) == (notice + TEXT, TEXT)
    assert answer.proof == Proof(True)


def test_a_notice_alone_is_nobodys_answer(objects: dict[str, Any]) -> None:
    given = {"sessionId": None, "twin": "dr-gurung", "answered": False, "error": {"error": {"message": "nobody"}},
             "notice": {"kinds": ["heart"], "language": "en", "characters": 15}}  # fmt: skip
    answer, _ = asked(
        FakeApi(objects, far_end=stream(given, "Call 102 now.\n\n", "No doctor's twin could answer now."))
    )
    assert (answer.answered, answer.proof, answer.results) == (False, None, ())
    assert "no miner answered for Dr. Indra Gurung" in answer_line(answer).plain


def test_a_gateway_that_says_no_more_than_a_receipt_is_still_understood(objects: dict[str, Any]) -> None:
    given = {name: value for name, value in more().items() if name not in {"ranking", "score"}}
    answer, _ = asked(FakeApi(objects, far_end=stream(given)))
    assert (answer.results, answer.score, answer.proof) == ((), None, Proof(True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{CORE}/secrets/desk-gateway-keys": None}, r"Secret desk-gateway-keys.*does not exist.*TWIN_GATEWAY_KEY"),
        ({f"{CORE}/secrets/desk-gateway-keys": secret(other="x")}, "holds no key in clear under `key`"),
        ({f"{CORE}/pods": {"items": [pod("down", ready=False)]}}, "None of validator desk's 1 gateway pods is ready"),
        ({f"{CORE}/pods": {"items": []}}, "Validator desk has no gateway pod"),
        ({f"{BASE}/validators/desk": None}, "no desk among the validators in namespace clinic"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(objects: dict[str, Any], change: dict[str, Any], words: str) -> None:
    with pytest.raises(TwinCliError, match=words):
        asked(FakeApi(objects | change))


def test_a_secret_of_ones_own_is_the_one_that_the_spec_names(objects: dict[str, Any]) -> None:
    objects[f"{BASE}/validators/desk"] = {"spec": {"gateway": {"keysSecretRef": {"name": "mine"}}}}
    objects[f"{CORE}/secrets/mine"] = secret(key="bt-0wn")
    api = FakeApi(objects, far_end=stream(more()))
    asked(api)
    assert b"Authorization: Bearer bt-0wn" in api.received


def test_a_refusal_is_told_in_the_gateways_own_words(objects: dict[str, Any]) -> None:
    body = json.dumps({"error": {"message": "nobody could answer for twin 'dr-gurung'"}}).encode()
    api = FakeApi(objects, far_end=b"HTTP/1.1 503 x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    with pytest.raises(TwinCliError, match="Validator desk's gateway answered 503: nobody could answer"):
        asked(api)


def test_the_ready_gateway_is_looked_for_by_the_validators_labels(objects: dict[str, Any]) -> None:
    class Labelled(FakeApi):
        selector: str | None = None

        def get(self, path: str, query: Any = None) -> Json:
            self.selector = (query or {}).get("labelSelector") or self.selector
            return super().get(path, query)

    api = Labelled(objects)
    assert gateway_pod(api, namespace="clinic", validator="desk") == "desk-gateway-1"
    assert api.selector == "bettertherapy.io/validator=desk,bettertherapy.io/component=gateway"


def shown(objects: dict[str, Any], monkeypatch: pytest.MonkeyPatch, extension: Json, *texts: str) -> None:
    api = FakeApi(objects, far_end=stream(extension, *texts))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr("kubectl_twin.commands.twins.connect", lambda _: nullcontext(api))
    ask_command("dr-gurung", "What now?", validator="desk")


def test_the_command_prints_the_answer_the_miner_the_scores_and_the_proof(
    objects: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(objects, monkeypatch, more())
    told = capsys.readouterr()
    assert told.out == f"{TEXT}\n"
    assert "Dr. Indra Gurung · adapter sha256:ab12ab12ab12 · miner 7" in told.err
    assert "receipt verified" in told.err
    rows = [line.split() for line in told.err.splitlines() if line[:1].isdigit()]
    assert [(row[0], row[2]) for row in rows] == [("7", "0.93"), ("8", "0.41"), ("9", "late")]
    assert [row[-1] == "given" for row in rows] == [True, False, False]


def test_an_answer_that_is_not_proven_ends_the_command_with_an_error(
    objects: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TwinCliError, match=r"does not prove who gave this answer \(answer\)"):
        shown(objects, monkeypatch, more(), "Drink ", "whisky.")
    assert "the receipt does not prove it: answer" in capsys.readouterr().err


def test_one_asks_a_pool_or_a_validator() -> None:
    with pytest.raises(TwinCliError, match="give one"):
        ask_command("dr-gurung", "What now?", pool="p", validator="desk")


def test_a_receipt_that_is_none_is_not_checked_and_says_why() -> None:
    proof = prove(Answered(receipt="junk", messages=MESSAGES, text=TEXT, twin="dr-gurung", adapter=DIGEST))
    assert proof.proven is None
    assert proof.why


def test_one_answer_needs_no_table(objects: dict[str, Any]) -> None:
    answer, _ = asked(FakeApi(objects, far_end=stream(more(ranking=more()["ranking"][:1]))))
    made = console()
    with made.capture() as captured:
        made.print(gateway_footer(answer))
    assert "UID" not in captured.get()
