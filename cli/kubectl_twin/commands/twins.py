"""`ask`, `list` and `status`: twins as they are now."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.errors import ApiError, TwinCliError
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.options import HERE, Format, Name, Namespace, Output, Watch, connect, filled

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubectl_twin.api import Api, Json
    from kubectl_twin.ask import Question
    from kubectl_twin.pools import PoolLine
    from kubectl_twin.views import EventLine


_INTERRUPTED = 130
_NOT_FOUND = 404


def ask_command(  # noqa: PLR0917 - Typer reads the options from here
    name: Name,
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.", metavar="QUESTION")],
    namespace: Namespace = None,
    pool: Annotated[
        str | None,
        typer.Option(help="Ask this pool; any that serves the twin if not given.", metavar="NAME", callback=filled),
    ] = None,
    validator: Annotated[
        str | None,
        typer.Option(
            help="Ask by the gateway of this Validator, which asks several miners.", metavar="NAME", callback=filled
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print the answer as it arrives.")] = True,
    max_tokens: Annotated[int, typer.Option(min=1, max=8192, help="Longest answer, in tokens.", metavar="N")] = 256,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 always gives the likeliest answer.", metavar="N")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Longest silence, in seconds.", metavar="N")] = 120.0,
    reach: Reach = HERE,
) -> None:
    """Ask a twin a question and print its answer as it arrives.

    Reaches the pool's miner through the API server, with a token of the pool's access Secret.

    With --validator the gateway asks several miners and gives the best answer; its receipt is checked here. The API key
    is that of $TWIN_GATEWAY_KEY, or of the Secret that the operator has made for the Validator.
    """
    from kubectl_twin import render  # noqa: PLC0415 - what only some commands need is imported by them
    from kubectl_twin.ask import Question, ask  # noqa: PLC0415

    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise TwinCliError("The question is empty.")
    if pool is not None and validator is not None:
        raise TwinCliError("--pool asks one pool's miner, --validator a gateway that chooses among miners: give one.")

    with connect(reach) as api:
        asked = Question(
            twin=name,
            text=text.strip(),
            namespace=namespace or api.namespace,
            pool=pool,
            max_tokens=max_tokens,
            temperature=temperature,
            stream=stream,
            timeout_seconds=timeout,
        )
        if validator is not None:
            _ask_through(api, asked, validator=validator, emit=terminal.write)
            return
        answer = ask(api, asked, on_text=terminal.write)
    terminal.write("\n")
    terminal.console(stderr=not sys.stdout.isatty()).print(render.answer_footer(answer))


def _ask_through(api: Api, asked: Question, *, validator: str, emit: Callable[[str], None]) -> None:
    """Print the gateway's answer; raises TwinCliError, after all was printed, where the receipt doesn't prove it."""
    from kubectl_twin.gateway import ask_through  # noqa: PLC0415
    from kubectl_twin.render_gateway import gateway_footer  # noqa: PLC0415

    answer = ask_through(api, asked, validator=validator, on_text=emit)
    terminal.write("\n")
    terminal.console(stderr=not sys.stdout.isatty()).print(gateway_footer(answer))
    if answer.proof is not None and answer.proof.proven is False:
        raise TwinCliError(
            f"The receipt does not prove who gave this answer ({', '.join(answer.proof.failed)}): don't rely on it."
        )


def list_command(
    namespace: Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Twins of all namespaces.")] = False,
    output: Format = Output.TABLE,
    watch: Watch = False,
    reach: Reach = HERE,
) -> None:
    """List twins: by whom served, whether they answer.

    Where the terminal is too narrow for all columns, some are left out; `-o json` and a pipe have everything.
    """
    from kubectl_twin.listing import list_twins  # noqa: PLC0415

    with connect(reach) as api:
        where = None if all_namespaces else namespace or api.namespace
        list_twins(api, namespace=where, output=output, watch=watch)


def status_command(
    name: Name, namespace: Namespace = None, output: Format = Output.TABLE, watch: Watch = False, reach: Reach = HERE
) -> None:
    """Report on one twin.

    Conditions, versions, fine-tuning, what each engine pod says, events. Times are in the twin's own zone
    (spec.fineTune.timeZone).
    """
    from kubectl_twin.lookup import find_twin  # noqa: PLC0415
    from kubectl_twin.watching import states  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        twin = find_twin(api, namespace=where, name=name)
        _print_status(api, twin, namespace=where, output=output)
        if not watch:
            return
        try:
            for changed in states(api, twin, namespace=where):
                if output is Output.TABLE:
                    terminal.say(f"\n{'-' * 20}")
                _print_status(api, changed, namespace=where, output=output)
        except KeyboardInterrupt:  # Typer would call it aborted
            raise typer.Exit(_INTERRUPTED) from None


def _print_status(api: Api, twin: Json, *, namespace: str, output: Output) -> None:
    from kubectl_twin import render, views  # noqa: PLC0415
    from kubectl_twin.listing import reference, whole  # noqa: PLC0415

    if output is Output.NAME:
        terminal.say(reference(twin))
        return
    if output is not Output.TABLE:
        terminal.print_document(whole(twin), output)
        return
    terminal.console().print(
        render.status_report(
            twin,
            conditions=views.condition_lines(twin),
            runs=_runs(api, namespace=namespace, name=twin["metadata"]["name"]),
            pools=_pools(api, twin, namespace=namespace),
            events=_events(api, twin, namespace=namespace),
            now=datetime.now(UTC),
        )
    )


def _pools(api: Api, twin: Json, *, namespace: str) -> list[PoolLine] | str:
    """Return what the twin's pools say of it, or why that can't be read: the rest is worth reading without."""
    from bettertherapy_api.names import LABEL_COMPONENT, LABEL_POOL  # noqa: PLC0415
    from kubectl_twin.api import core_path, reports_path, slices_path  # noqa: PLC0415
    from kubectl_twin.pools import PoolObjects, pool_lines  # noqa: PLC0415

    try:
        return pool_lines(
            twin,
            [
                PoolObjects(
                    name=pool,
                    pods=api.items(
                        core_path("pods", namespace), labels=f"{LABEL_POOL}={pool},{LABEL_COMPONENT}=engine"
                    ),
                    reports=api.items(reports_path(namespace), labels=f"{LABEL_POOL}={pool}"),
                    slices=api.items(slices_path(namespace), labels=f"{LABEL_POOL}={pool}"),
                )
                for pool in (twin.get("status") or {}).get("pools") or []
            ],
        )
    except ApiError as error:
        return str(error)


def _events(api: Api, twin: Json, *, namespace: str) -> list[EventLine] | str:
    """Return the events about the twin, or why they can't be read."""
    from kubectl_twin.api import core_path  # noqa: PLC0415
    from kubectl_twin.views import event_lines  # noqa: PLC0415

    about = f"involvedObject.kind=DoctorTwin,involvedObject.name={twin['metadata']['name']}"
    try:
        return event_lines(api.items(core_path("events", namespace), fields=about))
    except ApiError as error:
        return str(error)


def _runs(api: Api, *, namespace: str, name: str) -> list[Json] | str:
    """Return the twin's runs, or why they can't be read; none where the operator is one without fine-tunes."""
    from kubectl_twin.lookup import runs_of  # noqa: PLC0415

    try:
        return runs_of(api, namespace=namespace, name=name)
    except ApiError as error:
        return [] if error.status == _NOT_FOUND else str(error)
