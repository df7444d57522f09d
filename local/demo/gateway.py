"""A patient asks by a validator's gateway: three miners answer, the best answer is given and rated, also on a page."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any, Final

from bettertherapy_api import names
from demo import browser, pages, tasks
from demo.doctors import QUESTION, Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE
from demo.kube import Json, Kube, troubled_pods
from demo.miners import CARELESS, SECOND, OtherMiners, conditions
from demo.receipts import until
from demo.stage import Stage
from demo.subnet import NETUID, VALIDATOR, Subnet, secret_name
from kubectl_twin.api import Api
from kubectl_twin.ask import Question
from kubectl_twin.errors import TwinCliError
from kubectl_twin.gateway import GatewayAnswer, api_key, ask_through

NAME: Final = "front-desk"
PORT: Final = 8090
"""Of this machine, by which browsers reach the pages: it stands in their origin."""
ORIGIN: Final = f"http://localhost:{PORT}"
MINERS: Final = 3
STARS: Final = 5
_READY_S: Final = 300.0
_HEARD_S: Final = 180.0
_TOKENS: Final = 96
"""The twin's answer has 35 to 60, by how its training went; a bound that cuts it makes the careless miner, which is not
cut, the better one."""
_ASKED: Final = 3
"""Times at most, while a miner is too late: on two cores a neighbour's pause is enough for it."""
_DEADLINE_S: Final = 120
_REQUEST_S: Final = 30.0


def show(stage: Stage, subnet: Subnet, doctor: Doctor) -> None:
    """Have a gateway and two more miners, ask, rate, and look at the page; raises DemoError."""
    kube, timeline, console = stage.kube, stage.timeline, stage.timeline.console
    others = OtherMiners(stage)
    with timeline.step("install a validator's gateway, and two more miners before the clinic's engine"):
        kube.apply(validator())  # first: its models take longest to load
        subnet.enrol(others.wallets)
        version = others.install(doctor)
    with timeline.step("wait for both miners to serve the twin and to be registered"):
        others.await_registered(doctor)
    with timeline.step("wait for the gateway: it reads the chain, and loads what finds identifiers"):
        await_ready(kube)
    key = key_of(kube)
    target = f"deployment/{names.gateway_name(NAME)}"
    with kube.forwarded(target, names.GATEWAY_PORT, namespace=NAMESPACE) as url:
        with timeline.step(f"wait until it has heard from {MINERS} miners of {doctor.name}'s twin"):
            until(lambda: heard(url, key, doctor.twin, version.digest), patience=_HEARD_S)
        command = f'ask {doctor.twin} "{QUESTION}" --validator {NAME} -n {NAMESPACE}'
        timeline.note(f"$ kubectl twin {command}")
        with timeline.step(f"ask {doctor.name}'s twin by the gateway"):
            answer = ask(kube, doctor, key)
            for _ in range(_ASKED - 1):
                if not any(each.failure == "late" for each in answer.results):
                    break
                answer = ask(kube, doctor, key)
        called = {wallet.address: name for name, wallet in {**subnet.wallets, **others.wallets}.items()}
        pages.print_gateway(console, f"A patient asks by the gateway: {QUESTION}", answer, called)
        check(answer, careless=others.wallets[CARELESS.name].address)
        with timeline.step(f"rate the answer with {STARS} stars"):
            rate(url, key, answer)
    _show_page(stage, doctor)


def validator() -> Json:
    """Return the Validator: a gateway with pages, and a ledger of its own."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Validator",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "chain": {"network": "local", "netuid": NETUID},
            "walletSecretRef": {"name": secret_name(VALIDATOR)},
            "gateway": {
                "replicas": 1,
                "minersPerQuery": MINERS,
                # Three answers at once of a model on two cores.
                "deadlineSeconds": _DEADLINE_S,
                "country": "NP",
                "pages": {"origin": ORIGIN},
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            },
            "ledger": {"size": "1Gi"},
            # From the start: the gateway's pod is not to be made anew for it.
            "fineTuneTasks": tasks.offers(NAME),
        },
    }


def await_ready(kube: Kube) -> None:
    """Wait until the gateway answers; raises DemoError, with what the Validator and its pods say."""
    try:
        kube.kubectl(
            "wait", "--for=condition=Ready", f"validator/{NAME}", "-n", NAMESPACE, f"--timeout={_READY_S:.0f}s",
            timeout=_READY_S + 10,
        )  # fmt: skip
    except DemoError as error:
        found = kube.get("validator", NAME, "-n", NAMESPACE) or {}
        said = [
            f"{each['type']}={each['status']} {each['reason']}: {each['message']}"
            for each in (found.get("status") or {}).get("conditions") or []
        ]
        pods = troubled_pods(kube, NAMESPACE, f"{names.LABEL_VALIDATOR}={NAME}")
        raise DemoError(
            f"The gateway was not ready after {_READY_S:.0f} s",
            evidence="\n".join([*said, pods]),
            remedy=f"the conditions above say why; `kubectl describe validator {NAME} -n {NAMESPACE}` shows them again",
        ) from error


def key_of(kube: Kube) -> str:
    """Return the API key that the operator has made; raises DemoError."""
    with Api.connect(kubeconfig=kube.kubeconfig) as api:
        try:
            return api_key(api, {}, namespace=NAMESPACE, validator=NAME)
        except TwinCliError as error:
            raise DemoError(f"The gateway has no API key: {error}", remedy="run the demo again") from error


def heard(url: str, key: str, twin: str, digest: str) -> str:
    """Return the twin as the gateway lists it.

    Raises:
        DemoError: fewer miners announce it than are to be asked, or the gateway isn't told yet that this version may
            answer, which the kubelet brings to it.
    """
    status, said = request(f"{url}/v1/models/{twin}", key)
    more = (said.get("bettertherapy") or {}) if status == 200 else {}
    miners = more.get("miners", 0)
    if miners < MINERS or digest not in more.get("adapterDigests", ()):
        raise DemoError(
            f"The gateway has heard of {miners} miners that serve {twin}, and is to hear of {MINERS} with {digest}",
            evidence=json.dumps(said, indent=1),
            remedy=f"`kubectl logs deployment/{names.gateway_name(NAME)} -n {NAMESPACE}` says of whom it hears nothing",
        )
    return json.dumps(said)


def ask(kube: Kube, doctor: Doctor, key: str) -> GatewayAnswer:
    """Ask as `kubectl twin ask --validator` does, greedily; raises DemoError."""
    question = Question(
        twin=doctor.twin, text=QUESTION, namespace=NAMESPACE, max_tokens=_TOKENS, temperature=0.0,
        timeout_seconds=_DEADLINE_S + _REQUEST_S,
    )  # fmt: skip
    with Api.connect(kubeconfig=kube.kubeconfig) as api:
        try:
            return ask_through(api, question, validator=NAME, key=key)
        except TwinCliError as error:
            raise DemoError(
                f"The gateway gave no answer: {error}",
                evidence="\n".join(
                    [troubled_pods(kube, NAMESPACE), *(conditions(kube, each.name) for each in (SECOND, CARELESS))]
                ),
                remedy=f"`kubectl logs deployment/{names.gateway_name(NAME)} -n {NAMESPACE}`; run the demo again",
            ) from error


def check(answer: GatewayAnswer, *, careless: str) -> None:
    """Hold the answer against what the demo promises; `careless` is the hotkey of the miner that is set up badly.

    Raises:
        DemoError: not all miners were asked, the receipt proves nothing, or the badly set up one was thought the best.
    """
    results = {result.hotkey: result for result in answer.results}
    if len(results) != MINERS or any(result.score is None for result in answer.results):
        told = ", ".join(f"UID {each.uid}: {each.failure or each.score}" for each in answer.results)
        raise DemoError(
            f"Not all {MINERS} miners gave an answer that is proven: {told}",
            remedy="docs/gateway.md says what each reason means; running the demo again goes on from here",
        )
    if answer.proof is None or not answer.proof.proven:
        why = answer.proof.why or ", ".join(answer.proof.failed) if answer.proof is not None else "none came"
        raise DemoError(f"The receipt does not prove who answered: {why}", remedy="run the demo again")
    others = max(each.score or 0.0 for hotkey, each in results.items() if hotkey != careless)
    if careless not in results or (results[careless].score or 0.0) > others:
        raise DemoError(
            f"{CARELESS.name} was thought the best, though it is set up badly on purpose",
            remedy="the scores above say by how much; running the demo again asks anew",
        )


def rate(url: str, key: str, answer: GatewayAnswer) -> None:
    """Give stars, as a patient does; raises DemoError."""
    stars = {"sessionId": answer.session_id, "answerId": answer.answer_id, "stars": STARS}
    status, said = request(f"{url}/v1/ratings", key, stars)
    if status != 201 or said.get("stars") != STARS:
        raise DemoError(f"The rating was not taken: {status}", evidence=json.dumps(said), remedy="run the demo again")


def request(url: str, key: str, body: Any = None) -> tuple[int, Any]:
    """Return status and document of a request to the gateway; raises DemoError where it can't be reached."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=_REQUEST_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        said: Any = {}
        with suppress(ValueError, OSError):
            said = json.loads(error.read())
        return error.code, said if isinstance(said, dict) else {}
    except (OSError, ValueError) as error:
        raise DemoError(
            f"The gateway can't be reached: {error}", remedy=f"`kubectl describe validator {NAME} -n {NAMESPACE}`"
        ) from error


def _show_page(stage: Stage, doctor: Doctor) -> None:
    """Look at the page in a browser, where there is one; say where it is in any case."""
    timeline, service = stage.timeline, f"service/{names.gateway_name(NAME)}"
    picture = stage.options.work / "page.png"
    why = browser.obstacle()
    if why is None:
        target = f"deployment/{names.gateway_name(NAME)}"
        with timeline.step("ask and rate on the page, in a browser"):
            try:
                forwarded = stage.kube.forwarded(target, names.GATEWAY_PORT, namespace=NAMESPACE, local=PORT)
                with forwarded:
                    browser.visit(ORIGIN, doctor=doctor.name, question=QUESTION, picture=picture)
            except DemoError as error:
                if "in use" not in error.evidence:
                    raise
                why = f"port {PORT} of this machine is in use"
    timeline.note(f"no picture of the page: {why}" if why is not None else f"a picture of the page: {picture}")
    timeline.console.print(
        f"\nThe page is at {ORIGIN}, as long as this runs:\n"
        f"  kubectl port-forward {service} -n {NAMESPACE} {PORT}:{names.GATEWAY_SERVICE_PORT}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
