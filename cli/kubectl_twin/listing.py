"""`kubectl twin list`: one line a twin. As quick as `kubectl get`, so it imports neither Typer nor Rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from kubectl_twin import terminal
from kubectl_twin.api import Api, Json, twins_path
from kubectl_twin.columns import Cell, Column, Layout, layout
from kubectl_twin.errors import ApiError
from kubectl_twin.views import TwinRow, age, short_digest, twin_row

_GONE: Final = 410
_STYLES: Final = {"True": "green", "False": "red", "Unknown": "yellow"}
COLUMNS: Final = (
    Column("NAMESPACE", None),
    Column("NAME", None, yields_to=4),
    Column("DOCTOR", 2),
    Column("POOLS", 1),
    Column("SERVING", 7),
    Column("READY", 6, shorten=True),
    Column("ACTIVE", 3),
    Column("LOADED", 5),
    Column("AGE", 4),
)


def cells(row: TwinRow, now: datetime) -> list[Cell]:
    """Return the row's cells."""
    ready = row.ready if row.ready == "True" or not row.reason else f"{row.ready} ({row.reason})"
    return [
        Cell(row.namespace),
        Cell(row.name),
        Cell(row.doctor),
        Cell(",".join(row.pools) or "-"),
        Cell(row.serving, _STYLES.get(row.serving, "")),
        Cell(ready, _STYLES.get(row.ready, ""), short=row.ready),
        Cell("base model" if row.base_only else short_digest(row.active)),
        Cell(row.loaded),
        Cell(age(row.created, now)),
    ]


def table_of(rows: Sequence[TwinRow], *, now: datetime, all_namespaces: bool, width: int | None) -> Layout:
    """Return how these twins are laid out; a column goes where there is no room for all."""
    columns = COLUMNS if all_namespaces else COLUMNS[1:]
    return layout(columns, [cells(row, now)[0 if all_namespaces else 1 :] for row in rows], width=width)


def list_twins(api: Api, *, namespace: str | None, output: str, watch: bool) -> None:
    """Print the twins of a namespace, None for all; with `watch` go on with what changes, until interrupted.

    Raises:
        TwinCliError: the API server refused, or can't be reached.
    """
    found = api.get(twins_path(namespace))
    twins = sorted(found.get("items") or [], key=lambda each: (each["metadata"].get("namespace"), _name(each)))
    show = _printer(twins, namespace=namespace, output=output, watch=watch)
    while watch:
        try:
            for event, thing in api.watch(twins_path(namespace), since=found["metadata"]["resourceVersion"]):
                found["metadata"]["resourceVersion"] = thing["metadata"]["resourceVersion"]
                if event != "BOOKMARK":
                    show(thing)
        except ApiError as error:
            if error.status != _GONE:
                raise
            found = api.get(twins_path(namespace))


def _printer(twins: Sequence[Json], *, namespace: str | None, output: str, watch: bool) -> Callable[[Json], None]:
    """Print the twins there are, and return what prints one more."""
    if output in ("json", "yaml"):
        if watch:
            for each in twins:
                terminal.print_document(whole(each), output)
        else:
            everything = {"apiVersion": "v1", "kind": "List", "items": [whole(each) for each in twins]}
            terminal.print_document(everything, output)
        return lambda twin: terminal.print_document(whole(twin), output)
    if output == "name":
        for each in twins:
            terminal.say(reference(each))
        return lambda twin: terminal.say(reference(twin))
    if not twins and not watch:
        more = "" if namespace is None else " `kubectl twin list -A` shows those of all namespaces."
        where = "any namespace" if namespace is None else f"namespace {namespace}"
        terminal.say(f"No twins in {where}.{more}", err=True)
    skip = 0 if namespace is None else 1
    now = datetime.now(UTC)
    rows = [twin_row(each) for each in twins]
    made = table_of(rows, now=now, all_namespaces=namespace is None, width=terminal.width())
    if twins or watch:
        terminal.print_cells(made.head())

    def show(row: TwinRow) -> None:
        for line in made.lines(cells(row, datetime.now(UTC))[skip:]):
            terminal.print_cells(line)

    for row in rows:
        show(row)
    return lambda twin: show(twin_row(twin))


def reference(twin: Json) -> str:
    """Return a twin's name as `kubectl get -o name` writes it."""
    return f"doctortwin.bettertherapy.io/{_name(twin)}"


def _name(twin: Json) -> str:
    return str(twin["metadata"]["name"])


def whole(twin: Json) -> Json:
    """Return the object as `kubectl get` gives it: items of a list come without their kind, and none wants to see
    who wrote which field."""
    metadata = {key: value for key, value in twin["metadata"].items() if key != "managedFields"}
    return {"apiVersion": "bettertherapy.io/v1alpha1", "kind": "DoctorTwin", **twin, "metadata": metadata}
