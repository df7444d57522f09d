"""`verify`: which weights gave an answer, proven from its receipt."""

from __future__ import annotations

import typer

from kubectl_twin import terminal
from kubectl_twin.programs import neurons_program


def verify_command(context: typer.Context) -> None:
    """Prove offline which doctor's weights gave an answer.

    A program of its own: it needs what the neurons need to check signatures, and nothing of Kubernetes.
    """
    raise typer.Exit(terminal.run_program(neurons_program("receipts", "verify", *context.args)))
