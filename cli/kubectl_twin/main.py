"""`kubectl twin`: which commands there are. What they do lives in `commands` and in the modules beside this one."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from kubectl_twin import terminal
from kubectl_twin.commands import adapters, decisions, fine_tunes, receipts, rounds, subnet, top, twins
from kubectl_twin.errors import TwinCliError

app = typer.Typer(
    name="kubectl-twin",
    help="Ask AI doctor twins, see why one does not answer, fine-tune them, and decide which version answers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("ask")(twins.ask_command)
app.command("list")(twins.list_command)
app.command("status")(twins.status_command)
app.command("top")(top.top_command)
app.command("finetune")(fine_tunes.finetune_command)
app.command("review")(decisions.review_command)
app.command("approve")(decisions.approve_command)
app.command("reject")(decisions.reject_command)
app.command("rollback")(decisions.rollback_command)
app.command("history")(fine_tunes.history_command)
app.command("lineage")(fine_tunes.lineage_command)
app.command(
    "verify",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)(receipts.verify_command)
app.command("rounds")(rounds.rounds_command)
app.command("round")(rounds.round_command)
app.command("miners")(subnet.miners_command)
app.command("metagraph")(subnet.metagraph_command)
app.add_typer(adapters.adapter, name="adapter")


def main() -> None:
    """Entry point: run a command; a failure is one sentence on standard error and exit status 1."""
    try:
        app(prog_name="kubectl twin" if Path(sys.argv[0]).name.startswith("kubectl-") else None)
    except TwinCliError as error:
        terminal.complain(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # `| head` went away; Python would complain about it once more at exit
        sys.exit(0)


if __name__ == "__main__":
    main()
