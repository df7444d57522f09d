"""`kubectl twin`: which commands there are. What they do lives in `commands` and in the modules beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.commands import adapters, decisions, fine_tunes, receipts, rounds, subnet, top, twins
from kubectl_twin.options import on_cluster


def _version(wanted: bool) -> None:
    if wanted:
        from kubectl_twin.release import version  # noqa: PLC0415

        terminal.say(f"kubectl-twin {version()}")
        raise typer.Exit


app = typer.Typer(
    name="kubectl-twin",
    help="Ask AI doctor twins, see why one does not answer, fine-tune them, and decide which version answers.",
    no_args_is_help=True,
    add_completion=False,  # kubectl completes its plugins itself: see `completion`
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Say which release this is.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Take what stands before a command."""


app.command("ask")(on_cluster(twins.ask_command))
app.command("list")(on_cluster(twins.list_command))
app.command("status")(on_cluster(twins.status_command))
app.command("top")(on_cluster(top.top_command))
app.command("finetune")(on_cluster(fine_tunes.finetune_command))
app.command("review")(on_cluster(decisions.review_command))
app.command("approve")(on_cluster(decisions.approve_command))
app.command("reject")(on_cluster(decisions.reject_command))
app.command("rollback")(on_cluster(decisions.rollback_command))
app.command("history")(on_cluster(fine_tunes.history_command))
app.command("lineage")(on_cluster(fine_tunes.lineage_command))
app.command(
    "verify",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(receipts.verify_command)
app.command("rounds")(on_cluster(rounds.rounds_command))
app.command("round")(on_cluster(rounds.round_command))
app.command("miners")(on_cluster(subnet.miners_command))
app.command("metagraph")(on_cluster(subnet.metagraph_command))
app.add_typer(adapters.adapter, name="adapter")
