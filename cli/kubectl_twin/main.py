"""`kubectl twin`: where the plugin begins, and how a failure is told."""

from __future__ import annotations

import sys
from pathlib import Path

from kubectl_twin import quick, terminal
from kubectl_twin.errors import TwinCliError

_INTERRUPTED = 130


def main() -> None:
    """Entry point: run a command; a failure is one sentence on standard error and exit status 1."""
    try:
        if quick.run(sys.argv[1:]):
            return
        from kubectl_twin.program import app  # noqa: PLC0415 - it imports Typer, and Typer pydantic

        app(prog_name="kubectl twin" if Path(sys.argv[0]).name.startswith("kubectl-") else None)
    except TwinCliError as error:
        terminal.complain(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # `| head` went away; Python would complain about it once more at exit
        sys.exit(0)


if __name__ == "__main__":
    main()
