"""`python -m demo run`: what `make demo` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from demo.errors import DemoError
from demo.show import run
from demo.stage import Options
from demo.targets import CurrentTarget, KindTarget, LocalTarget, Target
from demo.timeline import Timeline
from kubectl_twin.text_console import TextConsole
from localcluster.layout import cache_dir

_WORK = Path(__file__).resolve().parents[2] / "build" / "demo"
_PIPE_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when all went as it should, 1 when a step failed, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    console = TextConsole(markup=True)
    if not console.is_terminal:
        console = TextConsole(markup=True, width=_PIPE_WIDTH)
    timeline = Timeline(console)
    targets: dict[str, Target] = {
        "local": LocalTarget(options.name),
        "kind": KindTarget(_WORK),
        "current": CurrentTarget(options.prometheus),
    }
    try:
        run(
            Options(
                target=targets[options.cluster],
                work=_WORK,
                cache=cache_dir(),
                registry=options.registry,
                tag=options.tag,
                until=options.until,
            ),
            timeline,
        )
    except DemoError as error:
        console.print(f"\n[red bold]{escape(error.what)}[/red bold]")
        if error.evidence:
            console.print(escape(error.evidence), soft_wrap=True)
        console.print(f"[bold]What to do:[/bold] {escape(error.remedy)}")
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted. What was built is kept: running the demo again goes on from there.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Two doctors' twins on a real cluster.")
    command = parser.add_subparsers(dest="command", required=True).add_parser("run", help="run the demo")
    command.add_argument(
        "--cluster",
        choices=["local", "current", "kind"],
        default="local",
        help="a cluster made on this machine; the kubeconfig's current context; one that kind makes in Docker",
    )
    command.add_argument(
        "--until",
        choices=["answers", "scaling", "receipt", "gateway", "round", "end"],
        default="end",
        help="where to stop: after the first answers; after a second engine has come and gone with a crowd of "
        "patients, which what follows leaves out; after a miner of the local subnet has answered with a receipt; "
        "after a gateway has asked three miners; after a round, in which its validator examines them and sets their "
        "weights and which `end` leaves out; or after the twin has learned and refused to learn",
    )
    command.add_argument("--name", default="demo", help="name of the local cluster")
    command.add_argument(
        "--registry",
        default="docker.io/bettertherapy",
        help="for --cluster current: from where the cluster pulls the images (push them there first)",
    )
    command.add_argument("--tag", default="0.1.0", help="for --cluster current: the images' tag")
    command.add_argument(
        "--prometheus",
        metavar="URL",
        help="for --cluster current: a Prometheus that scrapes the miners",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
