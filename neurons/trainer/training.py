"""A run of a trainer on its way (neurons.trainer.pipeline): data read, an adapter trained, a version published."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from neurons.trainer.base import Base
from neurons.trainer.pipeline import Underway
from neurons.trainer.progress import Progress
from neurons.trainer.run import Run
from neurons.trainer.termination import Termination
from neurons.trainer.tracking import Tracking, tracking_of

T = TypeVar("T")


class Training(Underway):
    """A run with its curves."""

    def __init__(
        self, options: argparse.Namespace, progress: AbstractContextManager[Progress], *, base: Base,
        termination: Termination,
    ) -> None:  # fmt: skip
        super().__init__(options, progress)
        self._base, self._termination = base, termination
        self._tracking = Tracking({})

    def read(self) -> dict[str, object] | None:
        """See Run.read. Raises OSError where there is no room for its folder."""
        work = self.folder()
        self._tracking = self.held.enter_context(tracking_of(self.options, work / "tensorboard"))
        self._run = Run(
            self.options, work=work, progress=self.progress, termination=self._termination, base=self._base,
            tracking=self._tracking,
        )  # fmt: skip
        return self._tracked(self._run.read)

    def compute(self, *, stepping: Callable[[], None]) -> None:
        """See Run.train."""
        self._tracked(partial(self._run.train, stepping=stepping))

    def conclude(self) -> dict[str, object]:
        """See Run.publish."""
        return self._tracked(self._run.publish)

    def broke_off(self, error: BaseException) -> None:
        """Let the curves end with what ended the run."""
        self._tracking.broke_off(error)

    def _tracked(self, stage: Callable[[], T]) -> T:
        try:
            return stage()
        except BaseException as error:
            self.broke_off(error)
            raise
