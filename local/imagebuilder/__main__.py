"""`python -m imagebuilder`: build, list and lock the images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from imagebuilder import builder, engines
from imagebuilder.archive import record_path
from imagebuilder.catalog import Catalog
from imagebuilder.errors import BuildError
from imagebuilder.locks import lock_all
from imagebuilder.model import build_model
from imagebuilder.paths import Paths

_APP = typer.Typer(no_args_is_help=True, add_completion=False, help="Build this project's container images.")
_CONSOLE = Console(stderr=True, emoji=False)


def _report(title: str, seconds: float) -> None:
    _CONSOLE.print(f"[green]✓[/green] {title} [dim]{seconds:.1f} s[/dim]", highlight=False)


@_APP.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Short names; all that need no registry, if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the archives go; the cache, if not given.")] = None,
    again: Annotated[bool, typer.Option(help="Build even what is there.")] = False,
    keep_layers: Annotated[bool, typer.Option(help="Leave all layers there, however little disk is left.")] = False,
) -> None:
    """Build the images and print their names and archives, in the order in which to load them, as JSON."""
    catalog, paths = Catalog(), Paths.from_environment()
    if again:
        for image in catalog.wanted(names or []):
            if not names or image.name in names:
                archive = builder.archive_path(image, catalog=catalog, folder=out or paths.archives)
                record_path(archive).unlink(missing_ok=True)
    built = builder.build(names or [], out=out, catalog=catalog, paths=paths, report=_report, keep_layers=keep_layers)
    print(json.dumps({"images": built.references, "archives": [str(path) for path in built.archives]}, indent=2))


@_APP.command()
def push(
    registry: Annotated[str, typer.Argument(help="Where to, such as registry.example.org/team.")],
    names: Annotated[list[str] | None, typer.Argument(help="Short names; all that need no registry, if none.")] = None,
    tag: Annotated[str | None, typer.Option(help="Their tag; the project's version, if not given.")] = None,
) -> None:
    """Build the images unless they are there, and push them to a registry; prints their names there as JSON."""
    print(json.dumps(builder.push(registry, names or [], tag=tag, report=_report), indent=2))


@_APP.command()
def refs(
    out: Annotated[Path | None, typer.Option(help="Where the archives go; the cache, if not given.")] = None,
) -> None:
    """Print each image's full name, and where its archive is once it is built, as JSON: what this checkout would build.

    They are in the order in which the archives must be loaded.
    """
    catalog, folder = Catalog(), out or Paths.from_environment().archives
    listed = {
        image.name: {
            "reference": catalog.reference(image),
            "archive": str(builder.archive_path(image, catalog=catalog, folder=folder)),
        }
        for image in catalog.wanted([])
    }
    print(json.dumps(listed, indent=2))


@_APP.command()
def model() -> None:
    """Make the demo's base model and print its folder; drops the images' layers, if little disk is left."""
    folder = build_model(report=_report)
    if builder.is_tight(Paths.from_environment()):
        trim()
    print(folder)


@_APP.command()
def lock(upgrade: Annotated[bool, typer.Option(help="Take the newest versions.")] = False) -> None:
    """Lock what the images install, with hashes."""
    lock_all(Catalog().repository, upgrade=upgrade)


@_APP.command()
def trim() -> None:
    """Drop the layers that only speed up the next build; the archives stay."""
    catalog, paths = Catalog(), Paths.from_environment()
    with builder.only_one(paths, _report):
        engine = engines.choose(catalog, paths)
        engine.prepare()
        engine.trim()


def main() -> int:
    """Run the command line; an error that has a remedy is shown with it, and exits with 1."""
    try:
        _APP()
    except BuildError as error:
        _CONSOLE.print(f"[red]✗ {error}[/red]", highlight=False, markup=True)
        _CONSOLE.print(f"  {error.remedy}", highlight=False, markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
