"""The CronJob's pod makes the round that is due, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neurons.cluster import ClusterError
from neurons.validator.round_creation import CreationError, create, named, round_name

ROUND = {
    "apiVersion": "bettertherapy.io/v1alpha1", "kind": "ValidatorRound", "metadata": {"namespace": "clinic"},
    "spec": {"validatorRef": {"name": "v"}},
}  # fmt: skip
ENVIRON = {"ROUND": json.dumps(ROUND), "VALIDATOR": "v", "JOB_NAME": "v-rounds-29401200"}


class Client:
    """Takes what is made, or refuses."""

    def __init__(self, error: ClusterError | None = None) -> None:
        self.made: list[tuple[str, Any]] = []
        self.error = error

    async def create(self, path: str, document: Any) -> None:
        self.made.append((path, document))
        if self.error is not None:
            raise self.error


def test_each_attempt_of_a_job_makes_the_same_round_and_another_job_another() -> None:
    assert round_name("v", "v-rounds-29401200") == round_name("v", "v-rounds-29401200") == "v-29401200"
    assert round_name("v", "v-rounds-29401440") != "v-29401200"
    by_hand = round_name("v", "first")
    assert by_hand.startswith("v-")
    assert by_hand != round_name("v", "second")
    assert len(round_name("v" * 40, "x" * 63)) <= 54


async def test_it_is_made_where_it_belongs() -> None:
    client = Client()
    assert await create(client, named(ENVIRON)) == "made round v-29401200"  # type: ignore[arg-type]
    [(path, document)] = client.made
    assert path == "/apis/bettertherapy.io/v1alpha1/namespaces/clinic/validatorrounds"
    assert document == {**ROUND, "metadata": {"namespace": "clinic", "name": "v-29401200"}}


async def test_one_that_is_there_already_is_fine_and_a_refusal_is_not() -> None:
    there = Client(ClusterError(409, "AlreadyExists", "m"))
    assert "is there already" in await create(there, named(ENVIRON))  # type: ignore[arg-type]
    with pytest.raises(ClusterError):
        await create(Client(ClusterError(403, "Forbidden", "m")), named(ENVIRON))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {**ENVIRON, "JOB_NAME": ""},
        {**ENVIRON, "ROUND": "{"},
        {**ENVIRON, "ROUND": "[]"},
        {**ENVIRON, "ROUND": json.dumps({**ROUND, "kind": "Pod"})},
        {**ENVIRON, "ROUND": json.dumps({**ROUND, "metadata": {}})},
    ],
)
def test_what_the_operator_does_not_say_is_refused_in_words(environ: dict[str, str]) -> None:
    with pytest.raises(CreationError):
        named(environ)
