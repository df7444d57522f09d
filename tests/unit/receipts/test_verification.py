"""`kubectl twin verify`: each way in which a receipt can be wrong has its own sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neurons.miner.chat import parse_chat
from neurons.receipts import NeuronEntry, question_of_messages, question_of_text, read_metagraph, write_metagraph
from neurons.receipts.__main__ import main
from tests.unit.receipts.keyring import COLDKEY, MINER, OTHER_MINER, STRANGER, VALIDATOR
from tests.unit.receipts.samples import ADAPTER, ANSWER, NOW_MS, QUESTION, signed

AT = "2026-05-28T20:26:40Z"  # NOW_MS
BLOCK = 1_000_000


def neuron(uid: int, keypair: Any, *, registered: int = 0) -> NeuronEntry:
    return NeuronEntry(
        uid=uid, hotkey=keypair.ss58_address, coldkey=COLDKEY.ss58_address, block_at_registration=registered
    )


@pytest.fixture
def metagraph(tmp_path: Path) -> Path:
    path = tmp_path / "metagraph.json"
    neurons = (neuron(0, VALIDATOR), neuron(7, MINER), neuron(9, OTHER_MINER, registered=BLOCK - 10))
    write_metagraph(path, netuid=42, block=BLOCK, neurons=neurons, time_ms=NOW_MS + 3_600_000)
    return path


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["verify", "--at", AT, *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def flowing(text: str) -> str:
    return " ".join(text.split())


def test_a_receipt_that_holds_proves_which_doctors_weights_answered(
    capsys: pytest.CaptureFixture[str], metagraph: Path
) -> None:
    status, said = verify(
        capsys, signed(MINER), "--question", QUESTION, "--answer", ANSWER, "--twin", "dr-gurung", "--adapter", ADAPTER,
        "--hotkey", MINER.ss58_address, "--metagraph", str(metagraph),
    )  # fmt: skip
    assert status == 0, said
    assert said.count("✓") == 6
    assert "Its hotkey is UID 7 of subnet 42 as of block 1000000." in flowing(said)
    assert "Proven: the miner vouches that the doctor's own weights of dr-gurung gave this answer." in flowing(said)
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("receipt", "arguments", "check", "sentence"),
    [
        ({}, ["--question", "Something else"], "question", "It is the receipt of another question."),
        ({}, ["--answer", ANSWER + " Take ten aspirins."], "answer", "The answer was altered"),
        ({}, ["--answer", ANSWER + "\n"], "answer", "without a line break that an editor added at its end"),
        ({}, ["--adapter", "sha256:" + "b" * 64], "weights", "It may be an old one, or one on trial"),
        ({"adapter": None}, ["--adapter", ADAPTER], "weights", "the base model without an adapter, and not the one"),
        ({}, ["--twin", "dr-okafor"], "weights", "Another doctor's twin answered: dr-gurung, and not dr-okafor."),
        ({"time_ms": NOW_MS + 600_000}, [], "time", "It is dated in the future: 2026-05-28 20:36:40 UTC, 10 minutes"),
        ({}, ["--hotkey", OTHER_MINER.ss58_address], "miner", "It is signed by another miner"),
        ({"choices": 2}, ["--answer", ANSWER + "."], "answer", "It covers all 2 choices together."),
    ],
)
def test_each_mismatch_has_its_own_sentence(
    capsys: pytest.CaptureFixture[str], receipt: dict[str, Any], arguments: list[str], check: str, sentence: str
) -> None:
    status, said = verify(capsys, signed(MINER, **receipt), *arguments)
    assert status == 1
    assert sentence in flowing(said)
    assert f"This receipt does not prove what you asked: {check}." in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(
    ("signer", "sentence"),
    [
        (
            STRANGER,
            "is nobody's on subnet 42 as of block 1000000: a stranger signed it, or a miner of another subnet, "
            "or one that has left",
        ),
        (COLDKEY, "It is signed by a coldkey of subnet 42"),
        (OTHER_MINER, "Its hotkey was no miner's yet: UID 9 of subnet 42 as of block 1000000 was registered at block"),
    ],
)
def test_a_foreign_hotkey_is_told_from_the_metagraph(
    capsys: pytest.CaptureFixture[str], metagraph: Path, signer: Any, sentence: str
) -> None:
    status, said = verify(capsys, signed(signer), "--metagraph", str(metagraph))
    assert status == 1
    assert sentence in flowing(said)


def test_a_stolen_hotkeys_name_is_no_signature(capsys: pytest.CaptureFixture[str], metagraph: Path) -> None:
    class Pretender:
        """Signs with its own key and says that it is the miner."""

        ss58_address, public_key, crypto_type = MINER.ss58_address, MINER.public_key, 1

        def sign(self, payload: bytes) -> bytes:
            return bytes(STRANGER.sign(payload))

    status, said = verify(capsys, signed(Pretender()), "--question", QUESTION, "--metagraph", str(metagraph))
    assert status == 1
    assert "did not sign this. Somebody else made the receipt, or changed it" in flowing(said)
    assert "The receipt says, but nobody is bound by it:" in said
    assert "✓" not in said, "nothing that a forged receipt says is called proven"


def test_what_is_not_given_is_not_called_proven(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = verify(capsys, signed(MINER))
    assert status == 0
    assert "Not compared: question, answer, weights, miner." in flowing(said)
    assert "Proven" not in said, "anybody can sign with a key of their own"
    _, said = verify(capsys, signed(MINER), "--question", QUESTION, "--answer", ANSWER)
    assert "Nothing fails, but the proof is not whole. Not compared: weights, miner." in flowing(said)


def test_whether_the_base_model_was_measured_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "base digest: not measured" in flowing(verify(capsys, signed(MINER))[1])
    measured = {"name": "smollm2", "revision": "main", "digest": ADAPTER}
    assert f"base digest: {ADAPTER}" in flowing(verify(capsys, signed(MINER, base=measured))[1])


def test_an_old_metagraph_says_how_old_it_is(capsys: pytest.CaptureFixture[str], metagraph: Path) -> None:
    month = 30 * 86_400_000
    status, said = verify(
        capsys, signed(MINER, time_ms=NOW_MS + month), "--metagraph", str(metagraph), "--at", "2026-07-01T00:00:00Z"
    )
    assert status == 0
    assert "That metagraph is 29 days older than the receipt" in flowing(said)


def test_a_metagraph_older_than_the_receipt_may_not_know_the_miner_yet(
    capsys: pytest.CaptureFixture[str], metagraph: Path
) -> None:
    late = signed(STRANGER, time_ms=NOW_MS + 3 * 86_400_000)
    status, said = verify(capsys, late, "--metagraph", str(metagraph), "--at", "2026-07-01T00:00:00Z")
    assert status == 1
    assert "or one that registered later: the metagraph is 2 days older than the receipt" in flowing(said)
    assert "or a miner of another subnet" in flowing(said)


@pytest.mark.parametrize(
    "carried",
    [
        "x-bettertherapy-receipt: {}\r\n",
        "X-BetterTherapy-Receipt:{}",
        '"{}"',
        "'{}'\n",
        'data: {{"choices":[],"bettertherapy":{{"receipt":"{}"}}}}\n\n',
        '{{"choices": [], "bettertherapy": {{"receipt": "{}"}}}}',
        '{{"uid": 7, "receipt": "{}"}}',
    ],
)
def test_a_receipt_is_found_in_what_was_copied_with_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, carried: str
) -> None:
    """The header's whole line, quotation marks of a shell, an event, or what `neurons.subnet ask -o json` prints."""
    (tmp_path / "receipt").write_bytes(carried.format(signed(MINER)).encode())
    status, said = verify(capsys, f"@{tmp_path / 'receipt'}", "--question", QUESTION)
    assert status == 0, said


def test_a_receipt_that_a_terminal_broke_into_lines_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    whole = signed(MINER)
    broken = "\n".join(whole[at : at + 76] for at in range(0, len(whole), 76))
    assert verify(capsys, broken, "--question", QUESTION)[0] == 0


@pytest.mark.parametrize("length", [100, 500, 501, 502, 503])
def test_a_receipt_that_was_cut_says_so(capsys: pytest.CaptureFixture[str], length: int) -> None:
    status, said = verify(capsys, signed(MINER)[:length])
    assert status == 2
    assert "cut short" in said
    assert "Copy the whole value" in said


def test_the_name_of_a_file_is_not_taken_for_what_it_holds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text(signed(MINER))
    receipt = signed(MINER)
    for given in (["text"], [receipt, "--question", "text"], [receipt, "--answer", "text"]):
        status, said = verify(capsys, *given)
        assert status == 2
        assert "text is a file: give @text for what it holds" in said


def test_half_a_number_of_a_metagraph_says_how_one_is_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"netuid": 4')
    status, said = verify(capsys, signed(MINER), "--metagraph", str(tmp_path / "m.json"))
    assert status == 2
    assert "`kubectl twin metagraph FILE` writes one" in said


def test_tool_calls_are_named_as_not_covered(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = verify(capsys, signed(MINER, unsigned=("tool_calls",)), "--answer", ANSWER)
    assert "It doesn't cover what was said beside text: tool_calls." in flowing(said)


def test_question_and_answer_may_lie_in_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    (tmp_path / "answer").write_text(ANSWER)
    (tmp_path / "receipt").write_text(signed(MINER) + "\n")
    for document in (messages, {"model": "dr-gurung", "messages": messages, "stream": True}):
        (tmp_path / "question").write_text(json.dumps(document, indent=2))
        status, said = verify(
            capsys, f"@{tmp_path}/receipt", "--question", f"@{tmp_path}/question", "--answer", f"@{tmp_path}/answer"
        )
        assert status == 0, said


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (r'{"messages":[{"role":"user","content":"half \ud83d"}]}', "half \ufffd"),
        (r'{"messages":[{"role":"user","content":"\ud83d\ude00 \ude00"}]}', "\U0001f600 \ufffd"),
        ('\ufeff{"messages":[{"role":"user","content":"x"}]}', "x"),
    ],
)
def test_a_body_is_read_as_the_miner_reads_it(capsys: pytest.CaptureFixture[str], body: str, read: str) -> None:
    """Half a character and a byte order mark come from clients; by their own body the question must be found again."""
    receipt = signed(MINER, question=question_of_text(read))
    assert question_of_messages(parse_chat(b'{"model":"m",' + body.strip("\ufeff")[1:].encode()).messages) == (
        question_of_text(read)
    )
    status, said = verify(capsys, receipt, "--question", body)
    assert status == 0, said


def test_a_number_that_no_integer_holds_is_read_as_the_miner_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    body = '{"model":"m","messages":[{"role":"user","content":"x","n":123456789012345678901234567890}]}'
    receipt = signed(MINER, question=question_of_messages(parse_chat(body.encode()).messages))
    assert verify(capsys, receipt, "--question", body)[0] == 0


def test_a_program_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = verify(capsys, signed(MINER), "--question", "Else", "-o", "json")
    document = json.loads(said)
    assert (status, document["proves"]) == (1, False)
    assert {check["name"]: check["outcome"] for check in document["checks"]} == {
        "signature": "holds", "time": "holds", "question": "fails", "answer": "not asked", "weights": "not asked",
        "miner": "not asked",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "This is no receipt"),
        (["@/nowhere/receipt"], "/nowhere/receipt can't be read: No such file or directory."),
        (["@"], "@ names no file"),
        (["-", "--question", "-"], "- is given 2 times, and standard input is read once"),
        ([signed(MINER), "--question", " "], "--question is empty"),
        ([signed(MINER), "--hotkey", "abc"], "--hotkey abc is no ss58 address: give the whole hotkey"),
        ([signed(MINER), "--hotkey", "5Grwva…GKutQY"], "`kubectl twin miners -o wide` prints it"),
        (['{"messages": []}'], "This is no receipt: it is a document of another kind"),
        ([signed(MINER), "--adapter", "abc"], "is no digest: give sha256: and 64 hex digits"),
        ([signed(MINER), "--at", "noon"], "is no time: write it like"),
        ([signed(MINER), "--metagraph", "/nowhere"], "The metagraph /nowhere can't be read"),
        ([signed(MINER), "--metagraph", "/dev/null"], "is no metagraph"),
        ([signed(MINER), "--question", "[" * 100_000], "The question can't be compared: it is nested too deep."),
        ([signed(MINER), "--question", '[{"a":' + "[" * 500 + "]" * 500 + "}]"], "it is nested too deep."),
        ([signed(MINER), "--question", "half \ud83d"], "The question can't be compared: it is not text."),
        ([signed(MINER), "--answer", "half \ud83d"], "The answer can't be compared: it is not text."),
    ],
)
def test_what_can_not_be_checked_is_said_in_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    status, said = verify(capsys, *arguments)
    assert status == 2
    assert said.startswith("error: ")
    assert says in said


def test_a_metagraph_is_read_as_it_was_written(metagraph: Path) -> None:
    read = read_metagraph(metagraph)
    assert (read.netuid, read.block, [each.uid for each in read.neurons]) == (42, BLOCK, [0, 7, 9])


def test_the_plugin_runs_it_and_passes_on_its_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kubectl_twin", "verify"]
    said = run(*command, signed(MINER), "--question", "x")
    assert said.returncode == 1
    assert "It is the receipt of another question." in flowing(said.stdout)
    helped = run(*command, "--help")
    assert "usage: kubectl twin verify" in helped.stdout
    assert max(map(len, helped.stdout.splitlines())) <= 80


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
