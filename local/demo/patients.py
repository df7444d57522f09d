"""Patients who ask a twin all the time, through the pool's miner: what a new version is tried on."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kubectl_twin.api import Api
from kubectl_twin.ask import Question, ask
from kubectl_twin.errors import TwinCliError

_PATIENTS: Final = 6
_TOKENS: Final = 8
_PAUSE_S: Final = 0.1


class Patients:
    """Asks while it is entered; counts who answered. `number` people at once, for answers of so many `tokens`."""

    def __init__(
        self, twin: str, questions: Sequence[str], *, namespace: str, kubeconfig: Path | None, number: int = _PATIENTS,
        tokens: int = _TOKENS,
    ) -> None:  # fmt: skip
        self._questions = itertools.cycle(questions)
        self._number, self._tokens = number, tokens
        self._twin, self._namespace, self._kubeconfig = twin, namespace, kubeconfig
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._answers: Counter[str] = Counter()
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(self._number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=60)

    @property
    def answers(self) -> dict[str, int]:
        """How many answers came from each version, by its served name."""
        with self._lock:
            return dict(self._answers)

    @property
    def failures(self) -> list[str]:
        """What went wrong, one sentence for each question that got no answer."""
        with self._lock:
            return list(self._failures)

    def _ask_on(self) -> None:
        with Api.connect(kubeconfig=self._kubeconfig) as api:
            self._until_ended(lambda text: self._ask(api, text))

    def _until_ended(self, put: Callable[[str], None]) -> None:
        while not self._ended.is_set():
            with self._lock:
                text = next(self._questions)
            put(text)
            self._ended.wait(_PAUSE_S)

    def _ask(self, api: Api, text: str) -> None:
        question = Question(
            twin=self._twin, text=text, namespace=self._namespace, max_tokens=self._tokens, stream=False
        )
        try:
            answer = ask(api, question)
        except TwinCliError as error:
            with self._lock:
                self._failures.append(str(error))
            return
        with self._lock:
            self._answers[answer.served_name or "?"] += 1
