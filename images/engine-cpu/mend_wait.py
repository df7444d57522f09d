"""Let vLLM's processes sleep while they wait for one another, in an engine for CPUs.

vLLM's engine and its worker wait for each other in a loop that gives its turn away and asks again, for a second after
each message before they sleep until they are woken. On a GPU's host that takes a core that has nothing else to do. On
CPUs it is taken from the arithmetic itself: while the worker computes, the engine's loop competes with it, and one
small question every few seconds keeps a third of a core busy with nothing. Seen in vLLM 0.32.0.

    python mend_wait.py VENV

It stops the build where vLLM's text is another: then look whether it can be told by an environment variable there.
"""

import py_compile
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

_QUEUE = "vllm/distributed/device_communicators/shm_broadcast.py"
_SECOND = "        busy_loop_s: float = 1,\n"
_MILLISECOND = "        busy_loop_s: float = 0.001,\n"


def mended(text: str) -> str:
    """Return the module's text with a loop of a millisecond; raises SystemExit."""
    if _MILLISECOND in text:
        return text
    found = text.count(_SECOND)
    if found != 1:
        raise SystemExit(f"{_QUEUE}: {found} places say how long it loops, not 1: can this vLLM be told otherwise?")
    return text.replace(_SECOND, _MILLISECOND)


def main(venv: Path) -> None:
    """Mend the installed module."""
    [queue] = venv.glob(f"lib/python3*/site-packages/{_QUEUE}")
    queue.write_text(mended(queue.read_text()))
    # The installer's bytecode is taken without a look at the source.
    py_compile.compile(str(queue), doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    print(f"mended {queue.name}: who waits sleeps after a millisecond")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
