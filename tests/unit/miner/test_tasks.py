"""Fine-tune tasks at the miner's door: whose are heard, which are taken, and that what is promised is written down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from bettertherapy_api.report import TaskClaim
from bettertherapy_api.task_states import KEY, PublishedTask, PublishedTasks, TaskState
from neurons.cluster import ClusterError
from neurons.miner.errors import RequestError
from neurons.miner.task_feed import ConfigMapSource, TaskReporter
from neurons.miner.tasks import TaskBook, TaskPolicy
from neurons.outside import ForbiddenAddress, check_address, check_url, outside_session
from neurons.wire.signer import signed_request
from neurons.wire.tasks import Report, read_report, sign_offer
from tests.unit.miner.running_miner import RunningMiner, eventually
from tests.unit.miner.signing_miner import INDRA, Validator, neuron, signing, validator
from tests.unit.receipts.keyring import MINER, STRANGER, VALIDATOR

from neurons.receipts import write_metagraph  # isort: skip

TASK = "11111111-1111-4111-8111-111111111111"
SHA = "sha256:" + "0" * 64
ADAPTER = "sha256:" + "b" * 64
HOUR = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def offer(by: Any = VALIDATOR, **changes: Any) -> bytes:
    task = changes.get("task", TASK)
    given: dict[str, Any] = {
        "task": task, "miner": str(MINER.ss58_address), "netuid": 42, "twin": "indra",
        "dataset": f"http://127.0.0.1:1/v1/tasks/{task}/dataset?x=1", "dataset_digest": SHA, "interactions": 30,
        "parent": INDRA.digest, "topics": (), "offered_ms": now_ms(), "deadline_ms": now_ms() + 20 * HOUR,
    }  # fmt: skip
    return sign_offer(by, **(given | changes))


async def post(validator: Validator, body: bytes) -> tuple[int, bytes]:
    async with signed_request(
        validator.session, validator.signer, method="POST", url=validator.url("/v1/tasks"),
        receiver=str(MINER.ss58_address), body=body, tries=1,
    ) as response:  # fmt: skip
        return response.status, await response.read()


def published(claim: dict[str, Any], state: TaskState, **more: Any) -> PublishedTask:
    return PublishedTask(
        id=claim["id"], validator=claim["validator"], dataset=claim["dataset"], deadline=claim["deadline"], state=state,
        **more,
    )  # fmt: skip


class PlayedOperator:
    """Reads what the miner asks, and publishes its word, in the folder that stands for a cluster."""

    def __init__(self, folder: Path, word: Callable[[dict[str, Any]], PublishedTask]) -> None:
        self.folder, self.word = folder, word
        self.claims: list[dict[str, Any]] = []

    def say(self, *tasks: PublishedTask) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / "part"
        part.write_text(PublishedTasks(tasks=tasks).to_json())
        part.replace(self.folder / KEY)

    async def run(self) -> None:
        while True:
            path = self.folder / "claims.json"
            if path.exists() and (claims := json.loads(path.read_text())):
                self.claims = claims
                self.say(*(self.word(each) for each in claims))
            await asyncio.sleep(0.02)


@asynccontextmanager
async def taking(
    folder: Path, word: Callable[[dict[str, Any]], PublishedTask] | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningMiner, Validator, PlayedOperator]]:
    operator = PlayedOperator(folder / "none" / "tasks", word or (lambda claim: published(claim, TaskState.ACCEPTED)))
    async with (
        signing(folder, **({"tasks": True} | settings)) as miner,
        validator(miner) as asking,
        asyncio.TaskGroup() as group,
    ):
        playing = group.create_task(operator.run())
        yield miner, asking, operator
        playing.cancel()


def said(data: bytes) -> Report:
    return read_report(data, miner=str(MINER.ss58_address))


async def test_what_is_accepted_was_written_down_by_the_operator_first(tmp_path: Path) -> None:
    async with taking(tmp_path) as (_, asking, operator):
        status, data = await post(asking, offer())
        assert (status, said(data).state, said(data).task) == (200, "accepted", TASK)
        [claim] = operator.claims
        read = TaskClaim.model_validate(claim)
        assert (read.twin, read.twin_uid, read.parent_digest) == ("indra", "uid-indra", INDRA.digest)
        # Offered again, as by a round that was begun again, it is answered the same.
        assert said((await post(asking, offer()))[1]).state == "accepted"


async def test_what_the_operator_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    async with taking(tmp_path, lambda each: published(each, TaskState.REFUSED, message="2 tasks are open")) as (
        _,
        asking,
        _operator,
    ):
        status, data = await post(asking, offer())
        assert (status, said(data).state, said(data).detail) == (200, "refused", "2 tasks are open")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"twin": "unknown"}, "isn't served here"),
        ({"parent": SHA}, "another version"),
        ({"parent": None}, "another version"),
        ({"netuid": 7}, "subnet 42"),
        ({"deadline_ms": 1}, "a task has to leave"),
        ({"deadline_ms": 2**52}, "a task has to leave"),
    ],
)
async def test_what_can_not_be_done_here_is_refused_at_once(tmp_path: Path, changes: Any, why: str) -> None:
    async with taking(tmp_path) as (_, asking, operator):
        status, data = await post(asking, offer(**changes))
        assert (status, said(data).state) == (200, "refused")
        assert why in said(data).detail
        assert operator.claims == []


async def test_without_a_policy_no_task_is_taken(tmp_path: Path) -> None:
    async with taking(tmp_path, tasks=False) as (_, asking, _operator):
        status, data = await post(asking, offer())
        assert (status, said(data).state, said(data).detail) == (200, "refused", "this miner takes no tasks")


async def test_an_offer_is_heard_of_the_validator_that_signed_both_and_of_nobody_else(tmp_path: Path) -> None:
    neurons = (neuron(0, VALIDATOR, permit=True), neuron(1, MINER), neuron(2, STRANGER))
    write_metagraph(tmp_path / "metagraph.json", netuid=42, block=1, neurons=neurons, time_ms=now_ms())
    async with taking(tmp_path) as (miner, asking, operator):
        status, body = await post(asking, offer(STRANGER))
        assert (status, b"bad_offer" in body) == (400, True)
        assert (await post(asking, offer(miner=str(STRANGER.ss58_address))))[0] == 400
        assert (await post(asking, offer(dataset="http://169.254.169.254/latest/meta-data")))[0] == 400
        assert (await post(asking, b"{}"))[0] == 400
        async with validator(miner, STRANGER) as without_permit:
            status, body = await post(without_permit, offer(STRANGER))
            assert (status, b"no_permit" in body) == (403, True)
        async with miner.client.post("/v1/tasks", data=offer()) as response:  # by a client's token
            assert response.status == 403
        assert operator.claims == []


def book(**given: Any) -> TaskBook:
    class Twins:
        twins: dict[str, Any] = {}  # noqa: RUF012

    values: dict[str, Any] = {
        "policy": TaskPolicy(accept=True, netuid=42), "snapshot": lambda: Twins, "decide_seconds": 0.05,
    }  # fmt: skip
    return TaskBook(MINER, **(values | given))


class OneTwin:
    """A snapshot with one twin."""

    class _Version:
        digest, weight = INDRA.digest, 100

    class _Route:
        uid = "uid-indra"

    def __init__(self) -> None:
        self._Route.active = (self._Version,)  # type: ignore[attr-defined]
        self.twins = {"indra": self._Route}


CALLER = f"hotkey:{VALIDATOR.ss58_address}"


async def test_while_the_operator_is_silent_nothing_is_promised_and_it_is_asked_on() -> None:
    changed: list[int] = []
    given = book(snapshot=OneTwin, changed=lambda: changed.append(1))
    for _ in range(2):
        with pytest.raises(RequestError) as refused:
            await given.offered(CALLER, offer())
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "task_waiting", 5)
    assert [each.id for each in given.claims] == [TASK]
    assert changed == [1]
    [claim] = [each.to_dict() for each in given.claims]
    await given.take({TASK: published(claim, TaskState.ACCEPTED)})
    assert given.claims == []
    assert said(await given.offered(CALLER, offer())).state == "accepted"


async def test_a_miner_that_begins_anew_knows_from_the_operator_what_it_promised() -> None:
    first = book(snapshot=OneTwin)
    with pytest.raises(RequestError):
        await first.offered(CALLER, offer())
    done = published(first.claims[0].to_dict(), TaskState.FINISHED, adapter=ADAPTER)
    anew = book()  # which serves nothing yet, and has forgotten all
    await anew.take({TASK: done})
    assert said(await anew.offered(CALLER, offer())).state == "accepted"
    assert [state for state, _ in anew.reports(done)] == ["accepted", "finished"]
    assert said(anew.reports(done)[1][1]).adapter == ADAPTER


async def test_only_so_many_wait_and_those_whose_time_is_over_make_room() -> None:
    clock = [now_ms()]
    given = book(snapshot=OneTwin, decide_seconds=0.0, now_ms=lambda: clock[0])
    for number in range(16):
        with pytest.raises(RequestError, match="hasn't decided"):
            await given.offered(CALLER, offer(task=f"{number:08}-1111-4111-8111-111111111111"))
    with pytest.raises(RequestError, match="too many tasks"):
        await given.offered(CALLER, offer())
    clock[0] += 21 * HOUR
    assert given.claims == []
    with pytest.raises(RequestError, match="hasn't decided"):
        await given.offered(CALLER, offer(deadline_ms=clock[0] + 20 * HOUR))


class PlayedGateway:
    """Takes reports as it is told to."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[str] = []

    async def __aenter__(self) -> PlayedGateway:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.path == f"/v1/tasks/{TASK}/reports"
        self.got.append(said(await request.read()).state)
        status = self.statuses.pop(0) if self.statuses else 200
        headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status in (301, 307) else {}
        return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)

    def task(self, state: TaskState = TaskState.FINISHED, *, seconds: float = 3600) -> PublishedTask:
        ends = datetime.fromtimestamp(time.time() + seconds, UTC).replace(microsecond=0)
        return PublishedTask(
            id=TASK, validator=str(VALIDATOR.ss58_address), dataset=f"{self.url}/v1/tasks/{TASK}/dataset?x=1",
            deadline=ends.isoformat().replace("+00:00", "Z"), state=state, adapter=ADAPTER,
        )  # fmt: skip


async def reported(gateway: PlayedGateway, task: PublishedTask, *, times: int = 6) -> None:
    given, clock = book(), [0.0]
    reporter = TaskReporter(given, loopback=True, clock=lambda: clock[0])
    await given.take({task.id: task})
    async with outside_session(loopback=True) as session:
        for _ in range(times):
            await reporter.once(session)
            clock[0] += 1000


async def test_a_report_is_sent_until_it_is_taken_and_then_no_more() -> None:
    async with PlayedGateway(503, 200, 429, 200) as gateway:
        await reported(gateway, gateway.task())
        assert gateway.got == ["accepted", "accepted", "finished", "finished"]


@pytest.mark.parametrize("status", [307, 404, 409, 410])
async def test_what_is_refused_for_good_is_not_sent_again_nor_elsewhere(status: int) -> None:
    async with PlayedGateway(status, 200) as gateway:
        await reported(gateway, gateway.task())
        assert gateway.got == ["accepted", "finished"]


async def test_after_its_time_nothing_is_sent() -> None:
    async with PlayedGateway() as gateway:
        await reported(gateway, gateway.task(seconds=-5))
        await reported(gateway, gateway.task(TaskState.REFUSED))
        assert gateway.got == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "[::ffff:169.254.169.254]"])
async def test_nobody_leads_us_to_this_machine_or_its_nodes_metadata(host: str) -> None:
    url = URL(f"http://{host}:9/v1/tasks/{TASK}/reports")
    async with outside_session() as session:

        async def ask() -> None:
            check_url(url)
            async with session.get(url):
                pass

        with pytest.raises(OSError) as refused:  # noqa: PT011 - an address as a number is refused before aiohttp
            await ask()
        assert "nobody outside" in repr(refused.value)


def test_private_networks_may_be_asked_since_clusters_are_there() -> None:
    check_address("10.1.2.3")
    check_address("203.0.113.7")
    with pytest.raises(ForbiddenAddress):
        check_address("100.100.100.200")
    with pytest.raises(ForbiddenAddress):
        check_url(URL("file:///etc/passwd"))


class PlayedCluster:
    """A ConfigMap, or none."""

    def __init__(self, found: Any) -> None:
        self.found = found

    async def get(self, path: str, params: Any) -> Any:
        assert path == "/api/v1/namespaces/clinic/configmaps/pool-tasks"
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_what_the_operator_says_is_read_from_its_config_map() -> None:
    async def read(found: Any) -> Any:
        return await ConfigMapSource(PlayedCluster(found), namespace="clinic", pool="pool").read()  # type: ignore[arg-type]

    claim = {"id": TASK, "validator": "v", "dataset": "d", "deadline": "2026-11-01T12:00:00Z"}
    tasks = PublishedTasks(tasks=(published(claim, TaskState.FAILED, message="why"),))
    assert (await read({"data": {KEY: tasks.to_json()}}))[TASK].message == "why"
    assert await read(ClusterError(404, "NotFound", "")) == {}
    assert await read(ClusterError(403, "Forbidden", "")) is None
    assert await read({"data": {KEY: "{"}}) is None
    assert await read({}) == {}


async def test_reports_reach_a_gateway_from_a_running_miner(tmp_path: Path) -> None:
    async with PlayedGateway() as gateway, taking(tmp_path) as (_, asking, operator):
        dataset = f"{gateway.url}/v1/tasks/{TASK}/dataset?x=1"
        assert said((await post(asking, offer(dataset=dataset)))[1]).state == "accepted"
        operator.word = lambda claim: published(claim, TaskState.FINISHED, adapter=ADAPTER)
        operator.say(operator.word(operator.claims[0]))
        await eventually(lambda: gateway.got == ["accepted", "finished"], 60)
