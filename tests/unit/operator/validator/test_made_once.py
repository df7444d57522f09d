"""What is made once: keys, the secret of sessions, the claim; and Secrets that a person has to make."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bettertherapy_api import names
from neurons.validator.gateway.keys import PREFIX, KeysFile, hash_of
from neurons.validator.gateway.service import SECRET_BYTES
from tests.unit.operator.fake_api import FakeApi
from tests.unit.operator.validator.validators import OWNER, POSTGRES, validator
from twin_operator.engine.resources import Key
from twin_operator.errors import ApiError
from twin_operator.kinds.validator.made_once import MadeOnce, build_keys_secret, new_key


def put_secret(api: FakeApi, name: str) -> None:
    api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "clinic"}})


def data(api: FakeApi, name: str) -> dict[str, bytes]:
    return {item: base64.b64decode(text) for item, text in api.kinds("Secret")[name]["data"].items()}


async def test_what_is_the_operators_to_make_is_made_and_then_left_alone() -> None:
    api = FakeApi()
    put_secret(api, "hotkey")
    made = MadeOnce(api)  # type: ignore[arg-type]
    found = await made.ensure(validator(), OWNER)
    assert found.missing == ()
    assert set(api.kinds("Secret")) == {"hotkey", "v-gateway-keys", "v-gateway-sessions"}
    assert set(api.kinds("PersistentVolumeClaim")) == {"v-gateway-state"}
    before = dict(api.objects)
    await MadeOnce(api).ensure(validator(), OWNER)  # type: ignore[arg-type]
    assert api.objects == before


async def test_the_key_that_is_made_is_one_that_the_gateway_lets_in() -> None:
    api = FakeApi()
    await MadeOnce(api).ensure(validator(), OWNER)  # type: ignore[arg-type]
    stored = data(api, "v-gateway-keys")
    read = KeysFile.model_validate_json(stored[names.KEYS_FILE])
    key = stored["key"].decode()
    assert key.startswith(PREFIX)
    operator = stored["operator-key"].decode()
    assert [(each.id, each.hash, each.role) for each in read.keys] == [
        ("default", hash_of(key), "client"), ("operator", hash_of(operator), "operator"),
    ]  # fmt: skip
    assert stored["key"] not in stored[names.KEYS_FILE]
    assert len(data(api, "v-gateway-sessions")[names.SESSIONS_FILE].strip()) >= SECRET_BYTES


def test_no_two_keys_are_alike() -> None:
    assert len({new_key() for _ in range(50)}) == 50
    made = [build_keys_secret(validator(), key=key, operator="o") for key in "ab"]
    assert made[0] != made[1]


async def test_the_ledger_and_the_secret_of_sessions_outlive_the_validator_and_the_keys_do_not() -> None:
    api = FakeApi()
    await MadeOnce(api).ensure(validator(), OWNER)  # type: ignore[arg-type]
    owned = {key.name: "ownerReferences" in thing["metadata"] for key, thing in api.objects.items()}
    assert owned == {"v-gateway-keys": True, "v-gateway-sessions": False, "v-gateway-state": False}


async def test_a_database_needs_no_claim_and_its_secret_must_be_there() -> None:
    api = FakeApi()
    put_secret(api, "hotkey")
    found = await MadeOnce(api).ensure(validator(**POSTGRES), OWNER)  # type: ignore[arg-type]
    assert [(each.key.name, each.field, each.why) for each in found.missing] == [
        ("pg", "spec.ledger.uriSecretRef", None)
    ]
    assert api.kinds("PersistentVolumeClaim") == {}


async def test_a_secret_that_a_person_has_to_make_is_asked_after_again_soon() -> None:
    api, now = FakeApi(), [0.0]
    made = MadeOnce(api, clock=lambda: now[0])  # type: ignore[arg-type]
    first = await made.ensure(validator(gateway={"replicas": 1, "keysSecretRef": {"name": "mine"}}), OWNER)
    assert {each.key.name for each in first.missing} == {"hotkey", "mine"}
    assert first.look_again is not None
    put_secret(api, "hotkey")
    put_secret(api, "mine")
    now[0] += first.look_again
    again = await made.ensure(validator(gateway={"replicas": 1, "keysSecretRef": {"name": "mine"}}), OWNER)
    assert again.missing == ()
    assert "v-gateway-keys" not in api.kinds("Secret")


async def test_what_was_found_is_believed_for_a_while_until_the_spec_names_another() -> None:
    api, now = FakeApi(), [0.0]
    put_secret(api, "hotkey")
    made = MadeOnce(api, clock=lambda: now[0])  # type: ignore[arg-type]
    await made.ensure(validator(), OWNER)
    now[0] += 200
    await made.ensure(validator(), OWNER)
    api.drop(Key("Secret", "clinic", "hotkey"))
    now[0] += 100
    assert (await made.ensure(validator(), OWNER)).missing == ()
    other = await made.ensure(validator(walletSecretRef={"name": "other"}), OWNER)
    assert [each.key.name for each in other.missing] == ["other"]


async def test_a_claims_size_and_class_are_the_specs_own() -> None:
    api = FakeApi()
    asked = {"ledger": {"size": "40Gi", "storageClassName": "fast"}}
    await MadeOnce(api).ensure(validator(**asked), OWNER)  # type: ignore[arg-type]
    spec = api.kinds("PersistentVolumeClaim")["v-gateway-state"]["spec"]
    assert spec["resources"]["requests"]["storage"] == "40Gi"
    assert (spec["storageClassName"], spec["accessModes"]) == ("fast", ["ReadWriteOnce"])


@pytest.mark.parametrize("status", [403, 422])
async def test_what_the_api_server_refuses_is_said_in_its_words(status: int) -> None:
    def refuse(verb: str, key: Key, body: Any) -> None:
        if key.kind == "PersistentVolumeClaim":
            raise ApiError(status=status, reason="Forbidden", message="exceeded quota")

    found = await MadeOnce(FakeApi(refuse=refuse)).ensure(validator(), OWNER)  # type: ignore[arg-type]
    assert [each.why for each in found.missing if each.key.kind == "PersistentVolumeClaim"] == ["exceeded quota"]


async def test_an_api_server_that_is_away_leaves_all_unsaid() -> None:
    """And is asked once: each further question would wait as long."""
    asked = []

    def refuse(verb: str, key: Key, body: Any) -> None:
        asked.append(key.name)
        raise ApiError(status=0, reason="Timeout", message="no answer")

    found = await MadeOnce(FakeApi(refuse=refuse)).ensure(validator(), OWNER)  # type: ignore[arg-type]
    assert [(key.name, error.status) for key, error in found.failed] == [(asked[0], 0)]
    assert len(asked) == 1
    assert asked[0] not in {each.key.name for each in found.missing}


async def test_what_could_not_be_asked_is_asked_again_at_once() -> None:
    api, broken = FakeApi(), True

    def refuse(verb: str, key: Key, body: Any) -> None:
        if broken:
            raise ApiError(status=503, reason="Unavailable", message="too busy")

    api.refuse = refuse
    put_secret(api, "hotkey")
    made = MadeOnce(api)  # type: ignore[arg-type]
    assert len((await made.ensure(validator(), OWNER)).failed) == 3
    broken = False
    assert (await made.ensure(validator(), OWNER)).failed == ()
    assert "v-gateway-keys" in api.kinds("Secret")
