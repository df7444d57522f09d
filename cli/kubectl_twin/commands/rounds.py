"""`rounds` and `round`: how a validator's miners did, who scored what, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.options import HERE, Format, Namespace, Output, connect, filled

RoundName = Annotated[str, typer.Argument(help="Name of the round.", metavar="NAME", callback=filled)]


def rounds_command(
    validator: Annotated[
        str | None, typer.Option("--validator", help="Of this Validator alone.", metavar="NAME", callback=filled)
    ] = None,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    reach: Reach = HERE,
) -> None:
    """List rounds: miners scored, the best, and the weights.

    The newest come first.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from kubectl_twin.render_rounds import rounds_table  # noqa: PLC0415
    from kubectl_twin.rounds import reference, rounds_of, row_of  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        found = rounds_of(api, namespace=where, validator=validator)
    if output is Output.NAME:
        for each in found:
            terminal.say(reference(each["metadata"]["name"]))
        return
    if output is not Output.TABLE:
        terminal.print_document(found, output)
        return
    if not found:
        of = f" of validator {validator}" if validator else ""
        terminal.say(f"No rounds{of} in namespace {where}.", err=True)
        return
    terminal.console().print(rounds_table([row_of(each) for each in found], now=datetime.now(UTC)))


def round_command(  # noqa: PLR0917 - Typer reads the options from here
    name: RoundName,
    miner: Annotated[
        str | None,
        typer.Option(
            "--miner", help="This miner's answers: its hotkey, or its UID.", metavar="HOTKEY", callback=filled
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--recompute", help="Reckon the scores once more from the stored answers.")
    ] = False,
    items: Annotated[int, typer.Option(min=0, help="With --miner: how many questions to show.", metavar="N")] = 10,
    timeout: Annotated[float, typer.Option(min=1, help="With --recompute: seconds to wait.", metavar="N")] = 900.0,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    reach: Reach = HERE,
) -> None:
    """Show who scored what in a round, and why.

    With --miner down to question, answer and the passage of the source.

    What is kept in the ledger is asked of the validator's gateway, by an operator's key: that of its Secret, or the
    one in TWIN_GATEWAY_KEY. With --recompute the exit status is 1 unless the same results come out.
    """
    from dataclasses import asdict  # noqa: PLC0415

    from kubectl_twin.finetune import Clock  # noqa: PLC0415
    from kubectl_twin.render_rounds import compared_text, miner_report, round_report  # noqa: PLC0415
    from kubectl_twin.rounds import (  # noqa: PLC0415
        find_round,
        hotkey_meant,
        read_miner,
        read_round,
        recompute,
        reference,
        require_same,
    )

    if miner is not None and again:
        raise TwinCliError("--miner shows what is stored and --recompute reckons it again: give one of them.")
    with connect(reach) as api:
        where = namespace or api.namespace
        made = find_round(api, namespace=where, name=name)
        if again:
            found = recompute(api, made, namespace=where, timeout_seconds=timeout, clock=Clock())
            if output is Output.NAME:
                terminal.say(reference(name))
            elif output is not Output.TABLE:
                terminal.print_document(asdict(found), output)
            else:
                terminal.console().print(compared_text(name, found))
            if not found.same:
                raise typer.Exit(1)
            return
        if output is Output.NAME:
            terminal.say(reference(name))
            return
        view = read_round(api, made, namespace=where)
        require_same(made, view)
        of_miner = (
            read_miner(api, made, hotkey=hotkey_meant(view, miner), namespace=where) if miner is not None else None
        )
    if output is not Output.TABLE:
        shown = of_miner if of_miner is not None else view
        terminal.print_document(shown.model_dump(mode="json", by_alias=True, exclude_none=True), output)
    elif of_miner is not None:
        terminal.console().print(miner_report(of_miner, most=items))
    else:
        terminal.console().print(round_report(made, view))
