"""``python -m localcluster --name demo up``: a real Kubernetes on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from localcluster import preflight as checks
from localcluster import tools
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.steps import ConsoleSteps

app = typer.Typer(
    help="A real Kubernetes on one machine: up, used, and gone without a trace.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Results go to standard output, so that a shell can use them; progress goes to standard error.
_progress = Console(stderr=True, emoji=False)
_output = Console(emoji=False)

MemoryOption = Annotated[float, typer.Option("--memory-gb", help="Memory that should be available.")]
DiskOption = Annotated[float | None, typer.Option("--disk-gb", help="Free disk to demand instead of the estimate.")]


@app.callback()
def main(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "demo",
    audit: Annotated[
        bool | None, typer.Option("--audit/--no-audit", help="Log every write to the API (default: only for `test`).")
    ] = None,
) -> None:
    """Choose the cluster."""
    context.obj = Cluster(name, audit=audit, steps=ConsoleSteps(_progress))


def _cluster(context: typer.Context) -> Cluster:
    cluster = context.obj
    if not isinstance(cluster, Cluster):
        raise TypeError("the command was called without its group")
    return cluster


@app.command()
def preflight(
    memory_gb: MemoryOption = checks.MEMORY_GB,
    disk_gb: DiskOption = None,
    install: Annotated[bool, typer.Option("--install", help="Install Debian packages that are missing.")] = False,
) -> None:
    """Check whether this machine can run a cluster."""
    if install:
        checks.install_packages(_progress.print)
    findings = checks.check(tools=tools.TOOLS, memory_gb=memory_gb, disk_gb=disk_gb)
    table = Table("check", "found", "what to do", box=None)
    for finding in findings:
        colour = "green" if not finding.remedy else "red" if finding.fatal else "yellow"
        table.add_row(finding.name, f"[{colour}]{escape(finding.found)}[/{colour}]", escape(finding.remedy))
    _output.print(table)
    if any(finding.remedy and finding.fatal for finding in findings):
        raise typer.Exit(1)


@app.command()
def build(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[TOOL]...", help="All when none is named.")] = None,
) -> None:
    """Build the programs that come from the Go module proxy."""
    known = {tool.name for tool in tools.TOOLS}
    if unknown := set(names or []) - known:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    _cluster(context).build(names or [])


@app.command()
def up(context: typer.Context, memory_gb: MemoryOption = checks.MEMORY_GB, disk_gb: DiskOption = None) -> None:
    """Bring the cluster up; does nothing when it is."""
    cluster = _cluster(context)
    cluster.up(memory_gb=memory_gb, disk_gb=disk_gb)
    tools.link(("kubectl", "helm"), Path(sys.executable).parent)
    _output.print(str(cluster.kubeconfig_path), highlight=False, soft_wrap=True)


@app.command()
def down(
    context: typer.Context,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the imported images too.")] = False,
) -> None:
    """End the cluster. Nothing of it stays but its images and logs."""
    cluster = _cluster(context)
    with ConsoleSteps(_progress).step(f"end cluster {cluster.name}"):
        cluster.down(purge=purge)


@app.command()
def status(context: typer.Context) -> None:
    """Show the cluster's components; fails when it is not up."""
    now = _cluster(context).status()
    if not now.running:
        _output.print(f"cluster {now.name} is down")
        raise typer.Exit(3)
    table = Table("component", "state", "restarts", box=None)
    for component in now.components:
        state = "done" if component.finished else "runs" if component.pid else f"ended ({component.last_exit})"
        table.add_row(component.name, state, str(component.restarts))
    _output.print(table)
    ready = sum(is_ready for _, is_ready in now.nodes)
    memory = "" if now.memory_bytes is None else f", {now.memory_bytes / checks.GB:.2f} GB of memory"
    _output.print(f"cluster {now.name}: {ready} of {len(now.nodes)} nodes ready{memory}")
    if not now.ready:
        raise typer.Exit(3)


@app.command()
def kubeconfig(context: typer.Context) -> None:
    """Print the path of the cluster's kubeconfig; fails when the cluster is down."""
    cluster = _cluster(context)
    if not cluster.running:
        _progress.print(f"cluster {cluster.name} is down: bring it up with `python -m localcluster up`")
        raise typer.Exit(3)
    _output.print(str(cluster.kubeconfig_path), highlight=False, soft_wrap=True)


@app.command("load-images")
def load_images(
    context: typer.Context,
    archives: Annotated[list[Path], typer.Argument(metavar="TAR...", exists=True, dir_okay=False)],
) -> None:
    """Import image archives (`docker save`) into the cluster."""
    for name in _cluster(context).load_images(archives):
        _output.print(name, highlight=False, soft_wrap=True)


@app.command("bin")
def bin_path(context: typer.Context, program: str) -> None:
    """Print the path of kubectl, helm, kwok, versitygw, …; builds it when need be."""
    cluster = _cluster(context)
    cluster.build([tools.tool_of(program).name])
    _output.print(str(cluster.bin(program)), highlight=False, soft_wrap=True)


@app.command()
def kwok(
    context: typer.Context, nodes: Annotated[int, typer.Option(min=0, max=2000, help="How many there shall be.")]
) -> None:
    """Have a number of fake nodes."""
    cluster = _cluster(context)
    cluster.build(["kwok"])
    with ConsoleSteps(_progress).step(f"{nodes} fake nodes"):
        cluster.kwok(nodes)


@app.command()
def prometheus(context: typer.Context) -> None:
    """Have a Prometheus that scrapes the project's pods, and print its URL; it ends with the cluster."""
    cluster = _cluster(context)
    cluster.build(["prometheus"])
    _output.print(cluster.prometheus(), highlight=False, soft_wrap=True)


def run() -> None:
    """Run the command line; an error that a person can act on is shown without a traceback."""
    try:
        app()
    except LocalClusterError as error:
        _progress.print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        _progress.print("interrupted; run the same command again to go on")
        sys.exit(130)


if __name__ == "__main__":
    # A child that reads the module from this folder must not depend on where the command was typed.
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    run()
