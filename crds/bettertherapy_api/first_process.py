"""SIGTERM while a program of a container is still starting: to its first process the kernel delivers no signal that has
no handler, so a pod that was told to end in that moment would stay until it is killed, minutes later.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Final

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended, as shells and container runtimes tell it."""


def end_on_sigterm() -> None:
    """Let SIGTERM end the first process of a container as it ends any other, until the program listens itself.

    Called where a program's package is imported first, before all that takes time. Elsewhere, and where somebody
    listens already, it changes nothing.
    """
    if os.getpid() != 1 or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(TERMINATED)  # nothing is put in order, as where the kernel does it
