"""The commands of `kubectl twin`. One function each; what they do lives in the modules beside this one."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_twin.errors import TwinCliError

if TYPE_CHECKING:
    from kubectl_twin.api import Api, Json

app = typer.Typer(
    name="kubectl-twin",
    help="Ask AI doctor twins, list them, and see why one does not answer.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
adapter = typer.Typer(help="Adapters: a doctor's LoRA weights, kept by their digest.", no_args_is_help=True)
app.add_typer(adapter, name="adapter")


class Output(StrEnum):
    """How `list` prints."""

    TABLE = "table"
    JSON = "json"


Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; the context's own if not given.", metavar="NS")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.", metavar="NAME")]


@app.command("ask")
def ask_command(  # noqa: PLR0917 - Typer reads the options from here
    name: Annotated[str, typer.Argument(help="Name of the twin.")],
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    namespace: Namespace = None,
    pool: Annotated[str | None, typer.Option(help="Ask this pool; any that serves the twin if not given.")] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print the answer as it arrives.")] = True,
    max_tokens: Annotated[int, typer.Option(min=1, max=8192, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0 always gives the likeliest answer.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Longest silence, in seconds.")] = 120.0,
    context: Context = None,
) -> None:
    """Ask a twin a question and print its answer as it arrives.

    Reaches the pool's miner through the API server, with a token of the pool's access Secret.
    """
    from kubectl_twin import render  # noqa: PLC0415 - what only some commands need is imported by them
    from kubectl_twin.ask import Question, ask  # noqa: PLC0415

    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise TwinCliError("The question is empty.")

    def emit(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    with _connect(context) as api:
        answer = ask(
            api,
            Question(
                twin=name,
                text=text.strip(),
                namespace=namespace or api.namespace,
                pool=pool,
                max_tokens=max_tokens,
                temperature=temperature,
                stream=stream,
                timeout_seconds=timeout,
            ),
            on_text=emit,
        )
    sys.stdout.write("\n")
    sys.stdout.flush()
    render.console(stderr=not sys.stdout.isatty()).print(render.answer_footer(answer))


@app.command("list")
def list_command(
    namespace: Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Twins of all namespaces.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="table or json.")] = Output.TABLE,
    context: Context = None,
) -> None:
    """List twins: which pools serve them, whether they answer, with which weights."""
    from kubectl_twin import render  # noqa: PLC0415
    from kubectl_twin.api import twins_path  # noqa: PLC0415
    from kubectl_twin.views import twin_row  # noqa: PLC0415

    with _connect(context) as api:
        where = None if all_namespaces else namespace or api.namespace
        twins = api.items(twins_path(where))
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"apiVersion": "v1", "kind": "List", "items": twins}, indent=2) + "\n")
        return
    if not twins:
        more = "" if all_namespaces else " `kubectl twin list -A` shows those of all namespaces."
        typer.echo(f"No twins in {'any namespace' if where is None else f'namespace {where}'}.{more}", err=True)
        return
    rows = sorted((twin_row(twin) for twin in twins), key=lambda row: (row.namespace, row.name))
    render.console().print(render.twin_table(rows, now=datetime.now(UTC), all_namespaces=all_namespaces))


@app.command("status")
def status_command(
    name: Annotated[str, typer.Argument(help="Name of the twin.")],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Report on one twin: conditions, versions, each engine pod, events."""
    from kubectl_twin import render, views  # noqa: PLC0415
    from kubectl_twin.lookup import find_twin  # noqa: PLC0415

    with _connect(context) as api:
        where = namespace or api.namespace
        twin = find_twin(api, namespace=where, name=name)
        reports = _reports(api, twin, namespace=where)
        events = _events(api, twin, namespace=where)
    pods, unreadable = views.pod_lines(name, reports)
    render.console().print(
        render.status_report(
            twin,
            conditions=views.condition_lines(twin),
            pods=pods,
            unreadable=unreadable,
            events=views.event_lines(events),
            now=datetime.now(UTC),
        )
    )


@adapter.command(
    "push", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def push_command(context: typer.Context) -> None:
    """Publish a PEFT folder under its digest; see `kubectl twin adapter push --help` for the arguments.

    The store's client runs as a program of its own: it needs what the neurons need, not what kubectl needs.
    """
    done = subprocess.run([sys.executable, "-m", "neurons.store", "push", *context.args], check=False)
    raise typer.Exit(done.returncode)


def main() -> None:
    """Entry point: run a command; a failure is one sentence on standard error and exit status 1."""
    try:
        app(prog_name="kubectl twin" if Path(sys.argv[0]).name.startswith("kubectl-") else None)
    except TwinCliError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # `| head` went away; Python would complain about it once more at exit
        sys.exit(0)


def _connect(context: str | None) -> Api:
    from kubectl_twin.api import Api  # noqa: PLC0415

    return Api.connect(context=context)


def _reports(api: Api, twin: Json, *, namespace: str) -> dict[str, Json]:
    from bettertherapy_api.names import report_name  # noqa: PLC0415
    from kubectl_twin.api import core_path  # noqa: PLC0415

    pools: list[str] = (twin.get("status") or {}).get("pools") or []
    found = {pool: api.find(core_path("configmaps", namespace, report_name(pool))) for pool in pools}
    return {pool: configmap.get("data") or {} for pool, configmap in found.items() if configmap is not None}


def _events(api: Api, twin: Json, *, namespace: str) -> list[Json]:
    from kubectl_twin.api import core_path  # noqa: PLC0415

    about = f"involvedObject.kind=DoctorTwin,involvedObject.name={twin['metadata']['name']}"
    return api.items(core_path("events", namespace), fields=about)


if __name__ == "__main__":
    main()
