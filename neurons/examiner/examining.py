"""A run of an examiner on its way (neurons.trainer.pipeline): what is asked read, its versions asked, their answers
scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager

from neurons.examiner.run import Examiner, Heard
from neurons.trainer.base import Base
from neurons.trainer.pipeline import Underway
from neurons.trainer.progress import Progress


class Examining(Underway):
    """A run with its examination."""

    def __init__(
        self, options: argparse.Namespace, progress: AbstractContextManager[Progress], *, base: Base, heard: Heard
    ) -> None:
        super().__init__(options, progress)
        self._base, self._heard = base, heard

    def read(self) -> None:
        """See Examiner.prepare. Raises OSError where there is no room for its folder."""
        self._examiner = Examiner(self.options, work=self.folder(), progress=self.progress)
        self._examiner.prepare()

    def compute(self, *, stepping: Callable[[], None]) -> None:
        """See Examiner.listen."""
        waiting = [stepping]

        def report() -> None:
            if waiting:
                waiting.pop()()

        self._examiner.listen(self._base, self._heard, report=report)

    def conclude(self) -> dict[str, object]:
        """See Examiner.conclude."""
        return self._examiner.conclude()
