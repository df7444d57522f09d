"""`kubectl twin status` as a program, with a real API server and operator; the test plays kubelet and agents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bettertherapy_api.report import Proof
from tests.api.operator_harness import Cluster, clean, cluster, condition, held, pool_manifest, twin_manifest, until
from tests.api.test_cli_finetune import Plugin
from tests.api.test_operator_rollout import are

pytestmark = pytest.mark.cluster


@pytest.fixture
async def world(kubeconfig: Path, home: str) -> AsyncIterator[Cluster]:
    async with cluster(kubeconfig, home) as world:
        yield world
        await clean(world)


async def test_the_status_joins_what_pods_are_told_with_what_they_say(
    world: Cluster, kubeconfig: Path, home: str
) -> None:
    await world.apply(pool_manifest(home))
    await world.apply(twin_manifest(home))
    for pod in ("e1", "e2", "e3"):
        await world.start_pod(pod)
    await world.report("e1", held().model_copy(update={"fingerprint_milli_nats": 52}))
    await world.report("e2", held().model_copy(update={"proof": Proof.UNPROVEN, "message": "it learned too little"}))
    await until(lambda: are(world, a=100), what="a answers")

    async def unproven() -> bool:
        return condition(await world.twin(), "AdaptersVerified") == ("Unknown", "Unproven")

    await until(unproven, what="the twin says that a pod proved nothing")
    said = await Plugin(kubeconfig, home)("status", "dr-a")
    assert (said.code, said.err) == (0, "")
    words = " ".join(said.out[said.out.index("Pods") :].split())
    assert "p answers with dr-a-aaaaaaaa (100%)" in words
    assert (
        "it answers as recorded when it was trained, 0.052 nats off" in words[words.index("e1:") : words.index("e2:")]
    )
    assert "nothing proves whose weights answer: it learned too little" in words[words.index("e2:") :]
    assert "e3: has not reported yet" in words
