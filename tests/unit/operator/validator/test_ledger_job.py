"""Job V-ledger-…."""

from __future__ import annotations

from typing import Any

from neurons.ledger.__main__ import OWNER_URL_VARIABLE, _parser
from tests.unit.operator.validator.validators import POSTGRES, ROUNDS, S3_TASKS, children


def jobs(**spec: Any) -> dict[str, dict[str, Any]]:
    return {name: child for (kind, name), child in children(**spec).items() if kind == "Job"}


def test_an_embedded_ledgers_tables_are_the_gateways_own_to_make() -> None:
    assert jobs() == {}


def test_the_command_is_one_that_the_ledger_knows_and_the_address_comes_from_the_secret() -> None:
    [job] = jobs(**POSTGRES).values()
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["python", "-m", "neurons.ledger"]
    assert _parser().parse_args(container["command"][3:]).run.__name__ == "_migrate"
    [address] = [each for each in container["env"] if each["name"] == "LEDGER_URL"]
    assert address["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "uri"}


def test_the_address_of_the_tables_owner_is_given_to_this_job_alone() -> None:
    made = children(**POSTGRES, **ROUNDS, **S3_TASKS)
    given = {key: str(child).count("LEDGER_OWNER_URL") for key, child in made.items() if "LEDGER_URL" in str(child)}
    assert len(given) > 1
    assert [kind for (kind, _), count in given.items() if count] == ["Job"]
    [job] = jobs(**POSTGRES).values()
    [container] = job["spec"]["template"]["spec"]["containers"]
    [address] = [each for each in container["env"] if each["name"] == OWNER_URL_VARIABLE]
    assert address["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "ownerUri", "optional": True}


def test_another_image_or_another_secret_makes_another_job() -> None:
    first, image, secret = (
        set(jobs(**spec))
        for spec in (
            POSTGRES,
            {**POSTGRES, "gateway": {"replicas": 1, "image": "n:2"}},
            {"ledger": {"uriSecretRef": {"name": "other"}}},
        )
    )
    assert len(first | image | secret) == 3
    assert set(jobs(**POSTGRES, gateway={"replicas": 5})) == first


def test_it_is_tried_until_the_database_is_there() -> None:
    [job] = jobs(**POSTGRES).values()
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert job["spec"]["backoffLimit"] > 100_000
    assert "ttlSecondsAfterFinished" not in job["spec"]  # it would be made again and again
