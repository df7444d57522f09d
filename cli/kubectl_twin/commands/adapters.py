"""`adapter`: a doctor's LoRA weights in the store."""

from __future__ import annotations

import os

import typer

from kubectl_twin import terminal
from kubectl_twin.programs import neurons_program

adapter = typer.Typer(help="Adapters: a doctor's LoRA weights, kept by their digest.", no_args_is_help=True)


@adapter.command(
    "push", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def push_command(context: typer.Context) -> None:
    """Publish a PEFT folder under its digest.

    The store's client runs as a program of its own: it needs what the neurons need, not what kubectl needs.
    """
    status = terminal.run_program(
        neurons_program("store", "push", *context.args),
        env={**os.environ, "TWIN_PROGRAM": "kubectl twin adapter"},
    )
    raise typer.Exit(status)
