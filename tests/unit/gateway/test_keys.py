"""Who may ask, which twins, how often."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neurons.miner.errors import RequestError, StartError
from neurons.validator.gateway import keys
from neurons.validator.gateway.files import FollowedFile
from neurons.validator.gateway.keys import hash_of, new_key
from neurons.validator.gateway.service import GatewayService
from neurons.validator.gateway.settings import Settings
from tests.unit.gateway.running_gateway import gateway, write_keys
from tests.unit.pages.browsing import pages
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


ENDS = datetime(2027, 3, 1, tzinfo=UTC)


def ending(folder: Path, **given: Any) -> tuple[keys.Keyring, Callable[[float], None], str]:
    """Return a ring with one key that ends, what sets its clock to so many seconds after that, and the key."""
    key = new_key()
    write_keys(folder / "keys.json", clinic={"key": key, "ends": "2027-03-01T00:00:00Z", **given})
    now = [0.0]
    ring = keys.Keyring(FollowedFile(folder / "keys.json", keys.KeysFile, what="API keys"), clock=lambda: now[0])

    def at(seconds: float) -> None:
        now[0] = ENDS.timestamp() + seconds

    return ring, at, key


def test_a_key_ends_on_its_date(tmp_path: Path) -> None:
    ring, at, key = ending(tmp_path)
    at(-1)
    assert ring.known(f"Bearer {key}").id == "clinic"
    at(0)
    with pytest.raises(RequestError) as refused:
        ring.known(f"Bearer {key}")
    assert (refused.value.status, refused.value.code) == (401, "api_key_ended")
    assert "ended on 2027-03-01T00:00:00Z" in refused.value.message
    assert ring.of_hash(hash_of(key)) is None
    assert ring.name_of(f"Bearer {key}") == "clinic", "the log may name it"
    assert ring.name_of("Bearer bt-nobody") is None


async def test_a_key_that_has_ended_opens_neither_door_and_is_logged_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old = new_key()
    given = {"gurung": {"key": old, "ends": "2026-01-31T00:00:00+05:45", "role": "doctor", "twins": ["indra"]}}
    async with pages(tmp_path, names=(), keys=given) as running, running.browser() as browser:
        for path in ("/v1/chat/completions", "/v1/ratings"):
            status, _, document = await running.gateway.post(path, {"model": "indra"}, bearer(old))
            assert (status, document["error"]["code"]) == (401, "api_key_ended")
        await browser.get("/sign-in")
        status, page = await browser.submit("/sign-in", {"key": old})
        assert status == 403
        assert "2026-01-30 18:15" in page
    said = [(each.event, each.client) for each in caplog.records if getattr(each, "client", None)]
    assert said.count(("refused: api_key_ended", "gurung")) == 2
    assert ("a sign-in was refused: the key has ended", "gurung") in said


def test_the_end_of_a_key_is_a_moment_that_everybody_reads_alike(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError):
        keys.ApiKey.model_validate({"id": "a", "hash": hash_of("a"), "ends": "2027-03-01T00:00:00"})
    assert keys.main(["clinic", "--ends", "2027-03-01"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["ends"] == "2027-03-01T00:00:00Z"
    assert keys.ApiKey.model_validate(entry).ends == ENDS
    with pytest.raises(SystemExit):
        keys.main(["clinic", "--ends", "soon"])
    assert "2027-03-01" in capsys.readouterr().err
