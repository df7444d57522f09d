"""The validator holds a round: its miners are asked the same, scored, and given their weights on the local subnet."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.round_view import MinerLine, MinerView, RoundView
from demo import gateway, pages, tasks
from demo.circle import circle
from demo.doctors import Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE, POOL, STORE_CLAIM
from demo.kube import Json, Kube, troubled_pods
from demo.miners import CARELESS, OtherMiners
from demo.receipts import until
from demo.stage import Stage
from demo.subnet import NETUID, PORT, RELEASE, VALIDATOR, Subnet
from kubectl_twin.api import Api
from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import Clock
from kubectl_twin.render_rounds import compared_text, miner_report, round_report
from kubectl_twin.rounds import Compared, read_miner, read_round, recompute

QUESTIONS: Final = Path(__file__).parent / "round" / "questions.jsonl"
"""What every miner is asked, with what the doctor would answer: graded by words, since no judge fits on two cores.

The questions take the twin for a shop. Its adapter has so strong a hold on so small a model that all three answer
patients alike, whatever stands in the system prompt; here one of them begins to sell.
"""
FOLDER: Final = "rounds"
"""Of the store's claim."""
_HELD_S: Final = 300.0
_WEIGHTS_S: Final = 300.0
_RECOMPUTED_S: Final = 300.0
_SEEN_S: Final = 60.0
_PAUSE_S: Final = 1.0
_SHOWN: Final = 2
"""Of the badly set up miner's answers."""


def show(stage: Stage, subnet: Subnet, doctor: Doctor) -> None:
    """Hold a round, and show who scored what, what the chain has of it, and that the same comes out again.

    Raises:
        DemoError: the round failed, the badly set up miner was not thought the worst, or the chain has other weights.
    """
    kube, timeline, console = stage.kube, stage.timeline, stage.timeline.console
    others = OtherMiners(stage)
    with timeline.step("give the validator questions of the clinic's own, and let it set weights"):
        with stage.volume(STORE_CLAIM) as store, tempfile.TemporaryDirectory() as scratch:
            shutil.copy(QUESTIONS, Path(scratch, QUESTIONS.name))
            store.upload(Path(scratch), f"{store.root}/{FOLDER}")
        kube.apply(validator())
        until(lambda: _validator_is_seen(kube), patience=_SEEN_S)
    with timeline.step("let the ledger remember a day: what patients said and the doctor corrected yesterday"):
        day = tasks.remember_yesterday(kube, doctor, validator=gateway.NAME, miner=subnet.wallets[POOL].address)
    name = create(kube, doctor)
    timeline.note(f"$ kubectl create -f round.yaml -n {NAMESPACE}   # ValidatorRound {name}")
    with timeline.step(f"hold round {name}: every miner of {doctor.name}'s twin is asked the same") as detail:
        made = await_condition(kube, name, "Complete", patience=_HELD_S, on_progress=detail)
    careless = others.wallets[CARELESS.name].address
    view, answers = stored(kube, made, hotkey=careless)
    with timeline.step("reckon the results once more from the stored answers"):
        again = reckoned(kube, made)
    with timeline.step("wait until the chain has the weights: committed sealed, revealed an epoch later") as detail:
        made = await_condition(kube, name, "WeightsSubmitted", patience=_WEIGHTS_S, on_progress=detail)
        hotkey = subnet.wallets[VALIDATOR].address
        with kube.forwarded(f"deployment/{RELEASE}", PORT, namespace=NAMESPACE) as url:
            weights = asyncio.run(weights_on_chain(url, hotkey))
    pages.print_tables(console, kube, ("rounds",), namespace=NAMESPACE)
    told = f"round {name} -n {NAMESPACE}"
    pages.print_report(console, told, round_report(made, view), scene="Every miner was asked the same, and scored:")
    pages.print_report(
        console, f"{told} --miner {answers.miner.uid}", miner_report(answers, most=_SHOWN),
        scene=f"Why {CARELESS.name} has its score:",
    )  # fmt: skip
    pages.print_report(console, f"{told} --recompute", compared_text(name, again), scene="From the stored answers:")
    called = {wallet.address: who for who, wallet in {**subnet.wallets, **others.wallets}.items()}
    pages.print_weights(console, "What the chain has of it:", view.miners, weights, called)
    check(view, weights, again, careless=careless)
    with timeline.step("find what the best miners were handed: yesterday's conversations, and a FineTuneRun") as detail:
        task = tasks.handed(kube, made, doctor, on_progress=detail)
    pages.print_tables(console, kube, ("finetuneruns",), namespace=NAMESPACE)
    turn = tasks.turn_of(doctor, view, weights, called=called, day=day, task=task)
    pages.print_circle(console, circle(turn), scene="The circle, as it went this time:")


def questions_digest() -> str:
    """Return by what the set of questions is known."""
    return f"sha256:{hashlib.sha256(QUESTIONS.read_bytes()).hexdigest()}"


def validator() -> Json:
    """Return the gateway's Validator with what rounds need; no schedule makes any."""
    made = gateway.validator()
    asked = len(QUESTIONS.read_text(encoding="utf-8").splitlines())
    made["spec"] |= {
        "rounds": {
            "suspend": True,
            # Half of a round are questions of yesterday's patients; the other half has all of the clinic's own.
            "itemsPerTwin": 2 * asked,
            # A clinic spreads them over the round, as patients come; here somebody waits.
            "spreadPercent": 0,
            "challenges": {
                "uri": f"pvc://{STORE_CLAIM}/{FOLDER}/{QUESTIONS.name}", "digest": questions_digest(),
            },
            "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        },
        "scoring": {
            # A few answers on two busy cores say little of who is quick.
            "weightsPercent": {"correctness": 90, "speed": 5, "satisfaction": 5, "participation": 0},
            "alphaPercent": 100,
        },
        "rewards": {},
    }  # fmt: skip
    return made


def round_object(name: str, doctor: Doctor) -> Json:
    """Return the ValidatorRound."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ValidatorRound",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "validatorRef": {"name": gateway.NAME},
            "twins": [doctor.twin],
            "challengeDigest": questions_digest(),
            "deadlineSeconds": round(_HELD_S),
        },
    }


def create(kube: Kube, doctor: Doctor) -> str:
    """Create a round beside those of earlier runs, and return its name; raises DemoError."""
    known = {each["metadata"]["name"] for each in kube.items("validatorrounds", "-n", NAMESPACE)}
    name = next(name for number in range(1, len(known) + 2) if (name := f"{gateway.NAME}-{number}") not in known)
    kube.kubectl("create", "-f", "-", stdin=json.dumps(round_object(name, doctor)))
    return name


def await_condition(
    kube: Kube, name: str, condition: str, *, patience: float, on_progress: Callable[[str], None],
    pause: float = _PAUSE_S,
) -> Json:  # fmt: skip
    """Return the round once the condition is True.

    Raises:
        DemoError: the round failed, the condition is False for good, or it takes longer than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        made = kube.get("validatorround", name, "-n", NAMESPACE) or {}
        said = {each["type"]: each for each in (made.get("status") or {}).get("conditions") or []}
        found = said.get(condition, {})
        if found.get("status") == "True":
            return made
        failed = said.get("Failed", {}).get("status") == "True" or (
            condition != "Complete" and found.get("status") == "False"
        )
        if failed or time.monotonic() > deadline:
            why = "failed" if failed else f"was not over after {patience:.0f} s"
            lines = [f"{each['type']}={each['status']} {each['reason']}: {each['message']}" for each in said.values()]
            raise DemoError(
                f"Round {name} {why}",
                evidence="\n".join([*lines, troubled_pods(kube, NAMESPACE, f"{names.LABEL_ROUND}={name}")]),
                remedy=f"`kubectl describe round {name} -n {NAMESPACE}` says the same; run the demo again",
            )
        on_progress(str((found if condition != "Complete" else said.get("Running", {})).get("message", "")))
        time.sleep(pause)


def stored(kube: Kube, made: Json, *, hotkey: str) -> tuple[RoundView, MinerView]:
    """Return a round and one of its miners, as the gateway tells operators of them; raises DemoError."""
    with Api.connect(kubeconfig=kube.kubeconfig) as api:
        try:
            return (
                read_round(api, made, namespace=NAMESPACE), read_miner(api, made, hotkey=hotkey, namespace=NAMESPACE)
            )  # fmt: skip
        except TwinCliError as error:
            raise _not_told(f"The gateway shows no round: {error}") from error


def reckoned(kube: Kube, made: Json) -> Compared:
    """Have the results reckoned once more from the stored answers; raises DemoError where nothing comes."""
    with Api.connect(kubeconfig=kube.kubeconfig) as api:
        try:
            return recompute(api, made, namespace=NAMESPACE, timeout_seconds=_RECOMPUTED_S, clock=Clock())
        except TwinCliError as error:
            raise _not_told(str(error)) from error


def check(view: RoundView, weights: Mapping[int, float], again: Compared, *, careless: str) -> None:
    """Hold the round against what the demo promises; `careless` is the hotkey of the miner that is set up badly.

    `weights` are the chain's, by UID, together 1; `again`: what reckoning once more gave.

    Raises:
        DemoError: a miner has no score, the badly set up one is not the worst, the chain has other weights, or other
            results came out of the stored answers.
    """
    scores = {each.hotkey: each.score for each in view.miners}
    told = ", ".join(f"UID {each.uid}: {_said(each)}" for each in view.miners)
    if len(scores) != gateway.MINERS or any(score is None for score in scores.values()):
        raise DemoError(
            f"Not all {gateway.MINERS} miners have a score: {told}",
            remedy=f"`kubectl twin round {view.name} --miner UID -n {NAMESPACE}` shows a miner's answers",
        )
    others = min(score or 0.0 for hotkey, score in scores.items() if hotkey != careless)
    if careless not in scores or (scores[careless] or 0.0) >= others:
        raise DemoError(
            f"{CARELESS.name} was not thought the worst, though it is set up badly on purpose: {told}",
            remedy="running the demo again holds another round",
        )
    wanted = {each.uid: each.weight for each in view.miners if each.weight}
    if wanted.keys() != weights.keys() or any(abs(wanted[uid] - weights[uid]) > 0.001 for uid in wanted):
        raise DemoError(
            f"The chain has other weights than the round gave: {dict(weights)}, and not {wanted}",
            remedy=f"`kubectl describe round {view.name} -n {NAMESPACE}` says what became of them",
        )
    if not again.same or again.digest != view.results_digest:
        raise DemoError(
            f"The stored answers give other results: {again.digest}, and not {view.results_digest}",
            evidence=again.message or "",
            remedy=f"`kubectl logs -l {names.LABEL_ROUND}={view.name} -n {NAMESPACE}`",
        )


async def weights_on_chain(url: str, hotkey: str) -> dict[int, float]:
    """Return the weights that a validator has in force, by UID, together 1; raises DemoError."""
    from neurons.chain import Chain, ChainError  # noqa: PLC0415 - seconds to load

    async def question(client: Any) -> dict[int, float]:
        import bittensor as bt  # noqa: PLC0415 - as above

        view = await client.at()
        uid = await view.query(bt.storage.SubtensorModule.Uids, [NETUID, hotkey])
        row = await view.query(bt.storage.SubtensorModule.Weights, [NETUID, int(uid)]) if uid is not None else None
        found = {int(target): int(value) for target, value in row or []}
        return {target: value / sum(found.values()) for target, value in found.items() if value}

    try:
        async with Chain(url) as chain:
            return await chain.ask(question)
    except ChainError as error:
        raise DemoError(
            f"The local subnet can't be read: {error}",
            remedy=f"`kubectl logs deployment/{RELEASE} -n {NAMESPACE}` shows what it says; run the demo again",
        ) from error


def _validator_is_seen(kube: Kube) -> str:
    """Wait for the operator to have read the validator: a round goes by what that was when it started."""
    found = kube.get("validator", gateway.NAME, "-n", NAMESPACE) or {}
    made, seen = found["metadata"]["generation"], (found.get("status") or {}).get("observedGeneration")
    if seen != made:
        raise DemoError(
            f"The operator has read generation {seen} of Validator {gateway.NAME}, and not yet {made}",
            remedy=f"`kubectl describe validator {gateway.NAME} -n {NAMESPACE}`",
        )
    return str(seen)


def _not_told(what: str) -> DemoError:
    gate = names.gateway_name(gateway.NAME)
    return DemoError(what, remedy=f"`kubectl logs deployment/{gate} -n {NAMESPACE}`; run the demo again")


def _said(line: MinerLine) -> str:
    return f"{line.score:.0f}%" if line.score is not None else "; ".join(line.notes) or "no score"
