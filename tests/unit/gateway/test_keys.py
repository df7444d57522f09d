"""Who may ask, which twins, how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurons.miner.errors import RequestError, StartError
from neurons.validator.gateway import keys
from neurons.validator.gateway.files import FollowedFile
from neurons.validator.gateway.keys import hash_of, new_key
from neurons.validator.gateway.service import GatewayService
from neurons.validator.gateway.settings import Settings
from tests.unit.gateway.running_gateway import gateway, write_keys
from tests.unit.receipts.keyring import VALIDATOR


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_without_a_known_key_nothing_is_answered(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        for header in ({"Authorization": ""}, bearer("bt-wrong"), {"Authorization": "Basic abc"}, bearer("x" * 5000)):
            status, _, document = await running.ask(headers=header)
            assert (status, document["error"]["type"]) == (401, "authentication_error")
        assert running.miners[0].agent.bodies == []
        # A hash from the file opens nothing.
        assert (await running.ask(headers=bearer(hash_of(running.key))))[0] == 401


async def test_the_file_holds_no_key_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    async with gateway(tmp_path, names=("Alice",)) as running:
        path = tmp_path / "keys.json"
        assert running.key not in path.read_text()
        new = new_key()
        assert (await running.ask(headers=bearer(new)))[0] == 401
        write_keys(path, other={"key": new})
        running.service._keys.refresh()
        assert (await running.ask(headers=bearer(new)))[0] == 200
        assert (await running.ask())[0] == 401, "the old one was taken back"
        path.write_text("{")
        running.service._keys.refresh()
        assert (await running.ask(headers=bearer(new)))[0] == 200, "the last good file counts"


async def test_a_key_is_for_its_twins_only(tmp_path: Path) -> None:
    scoped, other = new_key(), new_key()
    given = {"scoped": {"key": scoped, "twins": ["ind*"]}, "other": {"key": other, "twins": ["dr-*"]}}
    async with gateway(tmp_path, names=("Alice",), keys=given) as running:
        assert (await running.ask(headers=bearer(scoped)))[0] == 200
        status, _, document = await running.ask(headers=bearer(other))
        unknown = (await running.ask(headers=bearer(scoped), model="nobody"))[2]
        assert status == 404
        assert document["error"]["code"] == unknown["error"]["code"] == "model_not_found"
        assert (await running.get("/v1/models", bearer(other)))[1]["data"] == []
        assert (await running.get("/v1/models/indra", bearer(other)))[0] == 404
        assert (await running.get("/v1/models/indra", bearer(scoped)))[0] == 200


async def test_a_key_may_ask_so_often(tmp_path: Path) -> None:
    slow = new_key()
    async with gateway(tmp_path, names=("Alice",), keys={"slow": {"key": slow, "perMinute": 1, "burst": 2}}) as running:
        got = [await running.ask(headers=bearer(slow)) for _ in range(3)]
        assert [status for status, _, _ in got] == [200, 200, 429]
        assert 1 <= int(got[-1][1]["Retry-After"]) <= 60
        assert (await running.ask())[0] == 200, "others aren't held up"


def test_two_keys_of_one_client_are_no_way_round_its_limits(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    entries = [
        {"id": "clinic", "hash": hash_of(key), "perMinute": 1, "burst": burst} for key, burst in ((old, 1), (new, 2))
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"format": "bettertherapy-keys/1", "keys": entries}))
    ring = keys.Keyring(FollowedFile(tmp_path / "keys.json", keys.KeysFile, what="API keys"))
    refused = 0
    for key in (old, new) * 5:
        try:
            ring.count(ring.known(f"Bearer {key}"))
        except RequestError as error:
            refused += error.status == 429
    assert refused == 7


def test_the_command_makes_an_entry_that_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(["clinic", "--twins", "dr-*", "--per-minute", "30"]) == 0
    captured = capsys.readouterr()
    key = next(word for word in captured.err.split() if word.startswith("bt-"))
    entry = keys.ApiKey.model_validate(json.loads(captured.out))
    assert entry.hash == hash_of(key)
    assert key not in captured.out
    assert len(key) >= 43


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no file of API keys"),
        ('{"format": "bettertherapy-keys/1", "keys": [{"id": "a", "hash": "secret-in-clear"}]}', "keys.0.hash"),
        ('{"format": "x", "keys": []}', "format"),
    ],
)
def test_a_file_that_is_none_is_said_without_quoting_it(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(StartError, match=says) as caught:
        GatewayService(
            Settings(keys_file=path, metagraph_file=tmp_path / "m.json", state_dir=tmp_path), keypair=VALIDATOR
        )
    assert "secret-in-clear" not in str(caught.value)
