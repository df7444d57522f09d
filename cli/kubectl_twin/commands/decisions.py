"""`review`, `approve`, `reject` and `rollback`: which version answers is a person's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_twin import terminal
from kubectl_twin.errors import TwinCliError
from kubectl_twin.kubeconfig import Reach
from kubectl_twin.options import HERE, Format, Name, Namespace, Output, Wait, connect, filled

if TYPE_CHECKING:
    from kubectl_twin.api import Api

Digest = Annotated[
    str | None,
    typer.Option(
        "--digest",
        help="Only if it is this version that waits; its first digits do.",
        metavar="DIGEST",
        callback=filled,
    ),
]


def review_command(  # noqa: PLR0917 - Typer reads the options from here
    name: Name,
    namespace: Namespace = None,
    run: Annotated[
        str | None, typer.Option(help="A FineTuneRun; the newest if not given.", metavar="RUN", callback=filled)
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="How many questions to show.", metavar="N")] = 10,
    output: Format = Output.TABLE,
    reach: Reach = HERE,
) -> None:
    """Show both versions' answers to the same questions.

    Side by side where there is room, below the verdict. First emergencies that are played down, critical questions that
    were lost and answers that got worse; then what nobody could score, critical questions that neither version wins,
    and what got better.
    """
    from kubectl_twin.lookup import find_twin, runs_of  # noqa: PLC0415
    from kubectl_twin.render_review import review_report  # noqa: PLC0415
    from kubectl_twin.review import as_json, read_review, run_to_review  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        twin = find_twin(api, namespace=where, name=name)
        chosen = run or run_to_review(twin, runs_of(api, namespace=where, name=name))
        reviewed = read_review(api, twin, chosen)
    if output is Output.NAME:
        terminal.say(f"finetunerun.bettertherapy.io/{reviewed.run}")
        return
    if output is not Output.TABLE:
        terminal.print_document(as_json(reviewed), output)
        return
    console = terminal.console()
    console.print(review_report(twin, reviewed, most=items, width=console.width))


def approve_command(
    name: Name, namespace: Namespace = None, digest: Digest = None, wait: Wait = True, reach: Reach = HERE
) -> None:
    """Let a version that waits, of a task too, answer patients.

    Read `kubectl twin review` before: from now on later versions are compared with this one, so that what it lost is
    no loss any more.

    Shows which version it is and asks. Without a terminal to ask on, --digest says which version was reviewed. A
    version that came after it is never approved.
    """
    from kubectl_twin.decide import approve  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        shown = _meant(api, namespace=where, name=name, digest=digest, verb="approve")
        terminal.say(approve(api, namespace=where, name=name, digest=shown, wait=wait))


def _meant(api: Api, *, namespace: str, name: str, digest: str | None, verb: str) -> str:
    """Return the whole digest of the version that is meant: what was shown and agreed to, or what --digest names."""
    from kubectl_twin.decide import is_certain, shown, to_decide  # noqa: PLC0415
    from kubectl_twin.lookup import find_twin, runs_of  # noqa: PLC0415

    twin = find_twin(api, namespace=namespace, name=name)
    version = to_decide(twin, runs_of(api, namespace=namespace, name=name), digest)
    if digest is not None:
        if not is_certain(digest):
            raise TwinCliError(
                f"{digest} is too short to be sure of: write at least 8 digits of {version['digest']}, if that is what "
                "you reviewed."
            )
        return str(version["digest"])
    if not terminal.is_interactive():
        raise TwinCliError(
            f"There is no terminal to ask on: say which version you reviewed, by `--digest`. What waits now is "
            f"{version['digest']}; `kubectl twin review {name}` shows it."
        )
    terminal.say(shown(version), err=True)
    if not terminal.confirm(f"{verb.capitalize()} {version['digest']}?"):
        raise TwinCliError(f"Nothing was done: {version['servedName']} waits on.")
    return str(version["digest"])


def reject_command(  # noqa: PLR0917 - Typer reads the options from here
    name: Name,
    namespace: Namespace = None,
    reason: Annotated[
        str | None,
        typer.Option(
            help="Why, for the record. Nothing of a patient: everyone who sees the twin sees it.",
            metavar="TEXT",
            callback=filled,
        ),
    ] = None,
    digest: Digest = None,
    wait: Wait = True,
    reach: Reach = HERE,
) -> None:
    """Refuse a version that waits, of a task too."""
    from kubectl_twin.decide import reject  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        terminal.say(reject(api, namespace=where, name=name, digest=digest, reason=reason, wait=wait))


def rollback_command(  # noqa: PLR0917 - Typer reads the options from here
    name: Name,
    namespace: Namespace = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Digest, its first digits, or base; the version before if not given.",
            metavar="DIGEST",
            callback=filled,
        ),
    ] = None,
    wait: Wait = True,
    timeout: Annotated[float, typer.Option(min=1, help="Longest wait, in seconds.", metavar="N")] = 300.0,
    reach: Reach = HERE,
) -> None:
    """Go back to an earlier version. While one is on trial: take that one back.

    What answers goes on until every pod has loaded and verified the version gone back to.
    """
    from kubectl_twin.decide import rollback  # noqa: PLC0415

    with connect(reach) as api:
        target, seconds = rollback(
            api,
            namespace=namespace or api.namespace,
            name=name,
            to=to,
            wait_seconds=timeout if wait else None,
            on_change=lambda text: terminal.say(text, err=True),
        )
    if seconds is None:
        terminal.say(f"Going back to {target.served_name}. `kubectl twin status {name}` follows it.")
    else:
        terminal.say(f"{target.served_name} answers all patients again, after {seconds:.1f} s.")
