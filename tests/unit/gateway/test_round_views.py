"""The gateway shows rounds to operators, and to nobody else."""

from __future__ import annotations

import pytest

from bettertherapy_api.round_view import MinerLine, MinerView, RoundView
from neurons.ledger import LedgerDown
from neurons.miner.errors import RequestError
from neurons.validator.gateway.keys import ApiKey, Role
from neurons.validator.gateway.rounds import PATH, Rounds

LINE = MinerLine(uid=7, hotkey="5Grw", score=91.5)
VIEW = RoundView(
    name="r1", uid="u", validator="v", seed=1, items=2, start_time="2026-01-02T03:00:00Z", miners=(LINE,)
)  # fmt: skip


class Reader:
    """Knows one round with one miner."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down

    async def round(self, name: str) -> RoundView | None:
        if self.down:
            raise LedgerDown("away")
        return VIEW if name == "r1" else None

    async def miner(self, name: str, hotkey: str) -> MinerView | None:
        return MinerView(round=name, miner=LINE) if (name, hotkey) == ("r1", "5Grw") else None


def key(role: Role) -> ApiKey:
    return ApiKey(id="k", hash="sha256:" + "0" * 64, role=role)


OPERATOR = key(Role.OPERATOR)


async def test_a_round_and_one_of_its_miners_are_shown() -> None:
    rounds = Rounds(Reader())
    assert (await rounds.show("/v1/rounds/r1", OPERATOR))["miners"] == [
        {"uid": 7, "hotkey": "5Grw", "score": 91.5, "answered": 0, "asked": 0, "notes": []}
    ]
    assert (await rounds.show("/v1/rounds/r1/miners/5Grw", OPERATOR))["miner"]["uid"] == 7


@pytest.mark.parametrize("role", [Role.CLIENT])
async def test_no_client_sees_a_round(role: Role) -> None:
    with pytest.raises(RequestError) as refused:
        await Rounds(Reader()).show("/v1/rounds/r1", key(role))
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("rounds", "path", "status"),
    [
        (Rounds(None), "/v1/rounds/r1", 404), (Rounds(Reader()), "/v1/rounds/r2", 404),
        (Rounds(Reader()), "/v1/rounds/r1/miners/5Xyz", 404), (Rounds(Reader(down=True)), "/v1/rounds/r1", 503),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said(rounds: Rounds, path: str, status: int) -> None:
    with pytest.raises(RequestError) as refused:
        await rounds.show(path, OPERATOR)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "path",
    ["/v1/rounds/", "/v1/rounds/R1", "/v1/rounds/r1/miners/", "/v1/rounds/r1/x", "/v1/rounds/../x"],
)
def test_other_paths_are_no_rounds(path: str) -> None:
    assert PATH.fullmatch(path) is None
