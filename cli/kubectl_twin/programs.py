"""The project's own programs that some commands run: they need what the neurons need, which the plugin alone has not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from kubectl_twin.errors import TwinCliError


def neurons_program(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `neurons.<module>`.

    Raises:
        TwinCliError: the plugin was installed alone.
    """
    if find_spec("neurons") is None:
        raise TwinCliError(
            f"This needs the program neurons.{module}, which the plugin alone does not bring. Install the whole "
            "project beside it, in the same environment: `pip install .` in a checkout of it."
        )
    return [sys.executable, "-m", f"neurons.{module}", *arguments]
