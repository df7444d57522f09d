"""`top`: which twins are asked how often, how fast they answer and how many requests fail."""

from __future__ import annotations

from typing import Annotated

import typer

from kubectl_twin.kubeconfig import Reach
from kubectl_twin.options import HERE, Format, Namespace, Output, connect, filled


def top_command(
    namespace: Namespace = None,
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", metavar="URL", help="Read this Prometheus instead of the pods.", callback=filled),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=300, help="How long to count.", metavar="N")] = 5.0,
    output: Format = Output.TABLE,
    reach: Reach = HERE,
) -> None:
    """Show each twin's requests a second, latency and errors.

    Reads the metrics of the namespace's miners and engines through the API server, twice, --seconds apart; that needs
    the right to create pods/portforward. With --prometheus it is the last five minutes, as Prometheus counted them.

    P95: 95% of the answers took no longer. NOW: requests at engines. PODS: those that hold the twin's version, of those
    that shall. SLOTS: engines in which its adapter runs now.
    """
    from kubectl_twin import terminal, top  # noqa: PLC0415 - what only some commands need is imported by them
    from kubectl_twin.finetune import Clock  # noqa: PLC0415
    from kubectl_twin.render_top import top_table  # noqa: PLC0415

    with connect(reach) as api:
        where = namespace or api.namespace
        if prometheus is not None:
            readings = top.read_prometheus(prometheus, namespace=where)
        else:
            readings = top.read_pods(api, namespace=where, seconds=seconds, clock=Clock())
        found = top.top(readings, top.twins_of(api, where))
    if output is Output.NAME:
        for row in found.rows:
            terminal.say(f"doctortwin.bettertherapy.io/{row.twin}")
    elif output is not Output.TABLE:
        terminal.print_document(top.document(found, readings), output)
    else:
        terminal.console().print(top_table(found, readings))
