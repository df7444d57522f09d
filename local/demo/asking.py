"""One question to one twin, as `kubectl twin ask` puts it."""

from __future__ import annotations

from demo.doctors import QUESTION, Doctor
from demo.errors import DemoError
from demo.installation import NAMESPACE
from demo.kube import troubled_pods
from demo.stage import Stage
from kubectl_twin.api import Api
from kubectl_twin.ask import Answer, Question, ask
from kubectl_twin.errors import TwinCliError


def ask_twin(stage: Stage, doctor: Doctor, text: str = QUESTION, *, again: bool = False) -> Answer:
    """Ask, greedily: the same version gives the same answer. Raises DemoError."""
    question = Question(twin=doctor.twin, text=text, namespace=NAMESPACE, max_tokens=120, temperature=0.0)
    title = f"ask {doctor.name}'s twin{' again' if again else ''}"
    with stage.timeline.step(title), Api.connect(kubeconfig=stage.kube.kubeconfig) as api:
        try:
            return ask(api, question)
        except TwinCliError as error:
            raise DemoError(
                f"{doctor.name}'s twin did not answer: {error}",
                evidence=troubled_pods(stage.kube, NAMESPACE),
                remedy=f"`kubectl twin status {doctor.twin} -n {NAMESPACE}` shows what it lacks; run the demo again",
            ) from error
