"""`finetune`, `history` and `lineage`: how versions are made, and which there were."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError
from kubectl_twin.options import HERE, Format, Name, Namespace, Output, connect
from kubectl_twin.programs import neurons_program
from kubectl_twin.kubeconfig import Reach

if TYPE_CHECKING:
    from kubectl_twin.api import Api, Json

_INTERRUPTED = 130


def finetune_command(
    name: Name,
    namespace: Namespace = None,
    now: Annotated[bool, typer.Option("--now", help="Start one now, whatever the schedule says.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until its verdict.")] = True,
    reach: Reach = HERE,
) -> None:
    """Start a fine-tune now, and follow it to its verdict.

    Without --now it follows the one that is under way.

    Exit status 0 when a version was made and judged, whatever the verdict; 1 when none was made.
    """
    from kubectl_twin.finetune import new_token, start, to_follow  # noqa: PLC0415
    from kubectl_twin.lookup import find_twin  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        if now:
            run = start(api, namespace=where, name=name, token=new_token())
            terminal.say(f"FineTuneRun {run} was made.", err=wait)
            twin = find_twin(api, namespace=where, name=name)
            if (twin["spec"].get("fineTune") or {}).get("suspend"):
                terminal.say("Scheduled fine-tunes stay suspended (spec.fineTune.suspend).", err=True)
        else:
            twin = find_twin(api, namespace=where, name=name)
            found = to_follow(api, namespace=where, name=name)
            if found is None:
                raise TwinCliError(_none_under_way(twin))
            run = found
        if wait:
            _follow(api, twin, run, namespace=where)
        elif not now:
            terminal.say(f"FineTuneRun {run} is under way.")


def _none_under_way(twin: Json) -> str:
    from kubectl_twin.zones import moment, zone_of  # noqa: PLC0415

    name, planned = twin["metadata"]["name"], (twin.get("status") or {}).get("nextFineTuneTime")
    spec, zone = twin["spec"].get("fineTune"), zone_of(twin)
    if spec is None:
        why = "It has no schedule (spec.fineTune)"
    elif spec.get("suspend"):
        why = "Scheduled ones are suspended (spec.fineTune.suspend)"
    else:
        why = f"The next is at {moment(planned, zone)} {zone.name}" if planned else "None is planned yet"
    return f"No fine-tune of {name} is under way. {why}; `kubectl twin finetune {name} --now` starts one now."


def _follow(api: Api, twin: Json, run: str, *, namespace: str) -> None:
    from kubectl_twin import render, runs  # noqa: PLC0415
    from kubectl_twin.finetune import follow  # noqa: PLC0415

    errors = terminal.console(stderr=True)
    try:
        if errors.is_terminal:
            with errors.status("") as line:
                found = follow(
                    api, namespace=namespace, run=run, on_change=lambda each: line.update(render.run_line(each))
                )
        else:
            found = follow(
                api, namespace=namespace, run=run,
                on_change=lambda each: terminal.say(runs.progress_text(each), err=True),
            )  # fmt: skip
    except KeyboardInterrupt:
        terminal.say(f"{run} goes on; `kubectl twin finetune {twin['metadata']['name']}` follows it again.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if (trouble := runs.trouble(found)) is not None:
        raise TwinCliError(trouble)
    gate = runs.gate_of(found["status"].get("eval"))
    console = terminal.console()
    if gate is not None:
        console.print(render.verdict_line(gate))
        console.print(render.indented(render.gate_table(gate)))
    terminal.say(runs.what_follows(found, twin))


def history_command(
    name: Name, namespace: Namespace = None, output: Format = Output.TABLE, reach: Reach = HERE
) -> None:
    """List the twin's versions and how each ended.

    Newest first, with score, run, and from when to when it answered.
    """
    from kubectl_twin import versions  # noqa: PLC0415
    from kubectl_twin.render_versions import history_table  # noqa: PLC0415
    from kubectl_twin.zones import zone_of  # noqa: PLC0415

    twin, runs = _twin_and_runs(name, namespace, reach)
    rows = versions.history(twin, runs)
    if output is Output.NAME:
        for row in rows:
            terminal.say(row.served_name)
    elif output is not Output.TABLE:
        terminal.print_document([versions.camel(row) for row in rows], output)
    elif not rows:
        terminal.say(f"{name} has had no version yet: `kubectl twin status {name}` says why.", err=True)
    else:
        console = terminal.console()
        console.print(history_table(rows, width=console.width, zone=zone_of(twin)))


def lineage_command(
    name: Name,
    namespace: Namespace = None,
    from_store: Annotated[
        bool,
        typer.Option(
            "--from-store",
            help="Also read the manifests in the store, and ancestors that the cluster no longer knows. Needs access "
            "to the store from here, with credentials in the environment.",
        ),
    ] = False,
    output: Format = Output.TABLE,
    reach: Reach = HERE,
) -> None:
    """Say where each version comes from.

    On which dataset, by which run and from which version it was trained, and when it answered.
    """
    from kubectl_twin import versions  # noqa: PLC0415
    from kubectl_twin.render_versions import lineage_report  # noqa: PLC0415
    from kubectl_twin.zones import zone_of  # noqa: PLC0415

    twin, runs = _twin_and_runs(name, namespace, reach)
    origins = versions.lineage(twin, runs)
    if from_store:
        origins = versions.complete(name, origins, _manifest_lineage)
    if output is Output.NAME:
        for origin in origins:
            terminal.say(origin.served_name)
        return
    if output is not Output.TABLE:
        terminal.print_document([versions.camel(origin) for origin in origins], output)
        return
    console = terminal.console()
    base, zone = twin["spec"]["baseModel"]["name"], zone_of(twin)
    console.print(lineage_report(name, base, origins, width=console.width, zone=zone))


def _manifest_lineage(uri: str, digest: str) -> Json | None:
    """Read a manifest in a program of its own, as `adapter push` does: it needs what the neurons need."""
    done = subprocess.run(
        neurons_program("store", "lineage", uri, "--digest", digest),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        terminal.say(f"{uri} can't be read from here: {done.stderr.strip()[-500:]}", err=True)
        return None
    said: Json = json.loads(done.stdout)
    return said


def _twin_and_runs(name: str, namespace: str | None, reach: Reach) -> tuple[Json, list[Json]]:
    from kubectl_twin.lookup import find_twin, runs_of  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        return find_twin(api, namespace=where, name=name), runs_of(api, namespace=where, name=name)
