"""Grafana's dashboards of the project, built with Grafana's foundation SDK: fleet, twin, pool, fine-tuning, validation.

`charts/generate.py` writes them to twin-operator/files/dashboards. Every query takes its series from the metrics
contract; `python -m tests.dashboards --prometheus URL` tells which panels have no data in a running Prometheus.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh, VariableSort

from bettertherapy_api.metrics import agent, engine, gateway, miner, operator
from bettertherapy_api.metrics.series import Series

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WINDOW = "[$__rate_interval]"
HEIGHT, WIDE, HALF, SMALL = 8, 24, 12, 6
Query = tuple[str, str]
"""PromQL, and how its series are called in the legend."""


@dataclass(frozen=True)
class Panel:
    """One panel: its queries' last values as figures, or their course."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    span: int = HALF
    figure: bool = False
    about: str = ""


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    name: str
    title: str
    about: str
    rows: dict[str, Sequence[Panel]]
    variables: Sequence[tuple[str, str]] = ()
    """Name, and the series of which all values of that label may be chosen."""


def rate(series: Series, by: str, where: str = "") -> str:
    """Return what a counter counts a second."""
    return f"sum by ({by}) (rate({series.name}{{{where}}}{WINDOW}))"


def share(series: Series, by: str, bad: str, where: str = "") -> str:
    """Return which part of what a counter counts is bad; 0 where nothing is."""
    both = ",".join(part for part in (where, bad) if part)
    whole = rate(series, by, where)
    return f"({rate(series, by, both)} or {whole} * 0) / {whole}"


def quantile(of: float, series: Series, by: str = "", where: str = "") -> str:
    """Return a quantile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({of}, sum by ({labels}) (rate({series.bucket}{{{where}}}{WINDOW})))"


def objects(kind: str, by: str, where: str = "") -> str:
    """Return how many objects have a condition; each replica of the operator counts all of them."""
    matched = ",".join(part for part in (f'kind="{kind}"', where) if part)
    counted = f"max by (namespace, condition, status) ({operator.CONDITIONS.name}{{{matched}}})"
    return f"sum by ({by}) ({counted})"


HERE = 'namespace=~"$namespace"'
OF_POOL = f'{HERE},pool=~"$pool"'
OF_TWIN = f'{HERE},twin=~"$twin"'
FAILED = 'code=~"5..|broken"'
IN_NAMESPACE = ("namespace", miner.PODS_READY.name)

BOARDS = (
    Board(
        "fleet", "BetterTherapy: fleet", "All pools and twins, and the operator.",
        {
            "Answers": (
                Panel("Requests", [(rate(miner.REQUESTS, "namespace, pool", HERE), "{{namespace}}/{{pool}}")], "reqps"),
                Panel(
                    "Failed", [(share(miner.REQUESTS, "namespace, pool", FAILED, HERE), "{{namespace}}/{{pool}}")],
                    "percentunit", about="5xx, and streams that nobody could finish",
                ),
                Panel(
                    "95% answered within",
                    [(quantile(0.95, miner.REQUEST_SECONDS, "namespace, pool", HERE), "{{namespace}}/{{pool}}")], "s",
                ),
                Panel(
                    "Engine pods that may get requests",
                    [(f"max by (namespace, pool) ({miner.PODS_READY.name}{{{HERE}}})", "{{namespace}}/{{pool}}")],
                ),
            ),
            "Objects": (
                Panel(
                    "Twins by Serving",
                    [(objects("DoctorTwin", "status", f'condition="Serving",{HERE}'), "Serving={{status}}")],
                    span=SMALL, figure=True,
                ),
                Panel(
                    "Twins by Ready",
                    [(objects("DoctorTwin", "status", f'condition="Ready",{HERE}'), "Ready={{status}}")],
                    span=SMALL, figure=True,
                ),
                Panel(
                    "Pools by Ready",
                    [(objects("MinerPool", "status", f'condition="Ready",{HERE}'), "Ready={{status}}")],
                    span=SMALL, figure=True,
                ),
                Panel(
                    "Adapters by state",
                    [(f"sum by (state) ({agent.ADAPTERS.name}{{{HERE}}})", "{{state}}")], span=SMALL, figure=True,
                ),
            ),
            "Operator": (
                Panel("Leaders", [(f"sum({operator.IS_LEADER.name})", "leaders")], span=SMALL, figure=True),
                Panel(
                    "Targets that can't be read",
                    [(f'count({engine.UP.name}{{component!=""}} == 0) or vector(0)', "targets")], span=SMALL, figure=True,
                ),
                Panel("Objects in the cache", [(f"max by (kind) ({operator.CACHED_OBJECTS.name})", "{{kind}}")]),
                Panel(
                    "Reconciliations", [(rate(operator.RECONCILES, "kind, result"), "{{kind}} {{result}}")], "ops"
                ),
                Panel(
                    "95% of reconciliations within", [(quantile(0.95, operator.RECONCILE_SECONDS, "kind"), "{{kind}}")],
                    "s",
                ),
                Panel("Keys that wait", [(f"sum({operator.QUEUE_DEPTH.name})", "keys")]),
                Panel("99% wait", [(quantile(0.99, operator.QUEUE_WAIT_SECONDS), "for a worker")], "s"),
                Panel(
                    "Writes to the API server",
                    [(rate(operator.API_WRITES, "verb, status"), "{{verb}} {{status}}")], "ops",
                ),
                Panel(
                    "Changes of routing",
                    [(rate(operator.ROUTING_CHANGES, "namespace, pool"), "{{namespace}}/{{pool}}")], "ops",
                ),
            ),
        },
        [IN_NAMESPACE],
    ),
    Board(
        "twin", "BetterTherapy: twin", "One twin or several: its versions side by side.",
        {
            "Answers": (
                Panel("Requests by version", [(rate(miner.REQUESTS, "version", OF_TWIN), "{{version}}")], "reqps"),
                Panel("Requests by status", [(rate(miner.REQUESTS, "twin, code", OF_TWIN), "{{twin}} {{code}}")], "reqps"),
                Panel(
                    "Failed, by version", [(share(miner.REQUESTS, "version", FAILED, OF_TWIN), "{{version}}")],
                    "percentunit",
                ),
                Panel(
                    "At the engines now", [(f"sum by (version) ({miner.IN_FLIGHT.name}{{{OF_TWIN}}})", "{{version}}")]
                ),
                Panel(
                    "Answered within",
                    [
                        (quantile(0.5, miner.REQUEST_SECONDS, "version", OF_TWIN), "half, {{version}}"),
                        (quantile(0.95, miner.REQUEST_SECONDS, "version", OF_TWIN), "95%, {{version}}"),
                    ],
                    "s",
                ),
                Panel(
                    "First byte of a stream within",
                    [
                        (quantile(0.5, miner.FIRST_TOKEN_SECONDS, "version", OF_TWIN), "half, {{version}}"),
                        (quantile(0.95, miner.FIRST_TOKEN_SECONDS, "version", OF_TWIN), "95%, {{version}}"),
                    ],
                    "s",
                ),
            ),
            "Patients": (
                Panel(
                    "Ratings",
                    [
                        (
                            f"sum by (version, rating) (max_over_time({gateway.RATINGS.name}{{{OF_TWIN}}}[1d]))",
                            "{{version}}: {{rating}}",
                        )
                    ],
                    about="Given within a day, by rating from 1 to 5",
                ),
                Panel(
                    "Questions by way of gateways",
                    [(rate(gateway.REQUESTS, "twin, code", OF_TWIN), "{{twin}} {{code}}")], "reqps",
                ),
                Panel(
                    "Gateways answered within",
                    [(quantile(0.95, gateway.REQUEST_SECONDS, "twin", OF_TWIN), "95%, {{twin}}")], "s",
                ),
            ),
        },
        [IN_NAMESPACE, ("twin", miner.REQUESTS.name)],
    ),
    Board(
        "pool", "BetterTherapy: pool", "A pool's engines, what they hold and what waits.",
        {
            "Engines": (
                Panel("Engine up", [(f"{agent.ENGINE_UP.name}{{{OF_POOL}}}", "{{pod}}")], span=SMALL, figure=True),
                Panel(
                    "Engine processes", [(f"{agent.ENGINE_PROCESSES.name}{{{OF_POOL}}}", "{{pod}}")], span=SMALL,
                    figure=True, about="Begun since the pod's agent runs; 1 is right",
                ),
                Panel(
                    "Adapters", [(f"sum by (pod, state) ({agent.ADAPTERS.name}{{{OF_POOL}}})", "{{pod}} {{state}}")]
                ),
                Panel("Running", [(f"sum by (pod) ({engine.RUNNING.name}{{{OF_POOL}}})", "{{pod}}")]),
                Panel("Waiting", [(f"sum by (pod) ({engine.WAITING.name}{{{OF_POOL}}})", "{{pod}}")]),
                Panel("KV cache", [(f"max by (pod) ({engine.KV_CACHE.name}{{{OF_POOL}}})", "{{pod}}")], "percentunit"),
                Panel(
                    "Tokens a second",
                    [
                        (rate(engine.GENERATED_TOKENS, "pod", OF_POOL), "written, {{pod}}"),
                        (rate(engine.PROMPT_TOKENS, "pod", OF_POOL), "read, {{pod}}"),
                    ],
                ),
                Panel("At the agents now", [(f"{agent.REQUESTS_IN_FLIGHT.name}{{{OF_POOL}}}", "{{pod}}")]),
                Panel(
                    "Refused by agents",
                    [(rate(agent.REQUESTS_REFUSED, "pod, reason", OF_POOL), "{{pod}} {{reason}}")], "ops",
                ),
                Panel(
                    "Adapters loaded and verified within",
                    [(quantile(0.95, agent.ADAPTER_LOAD_SECONDS, "pod", OF_POOL), "95%, {{pod}}")], "s",
                ),
                Panel(
                    "Second looks at adapters",
                    [(rate(agent.SECOND_LOOKS, "outcome", OF_POOL), "{{outcome}}")], "ops",
                ),
            ),
            "Miners": (
                Panel("Requests that wait for a pod", [(f"sum by (pool) ({miner.HELD.name}{{{OF_POOL}}})", "{{pool}}")]),
                Panel("Tried elsewhere", [(rate(miner.RETRIES, "reason", OF_POOL), "{{reason}}")], "ops"),
                Panel(
                    "Broken streams", [(rate(miner.CONTINUED_STREAMS, "outcome", OF_POOL), "{{outcome}}")], "ops"
                ),
            ),
        },
        [IN_NAMESPACE, ("pool", miner.PODS_READY.name)],
    ),
    Board(
        "fine-tuning", "BetterTherapy: fine-tuning", "What twins learn from, what becomes of it, and whether it is better.",
        {
            "Runs": (
                Panel(
                    "Runs by condition",
                    [(objects("FineTuneRun", "condition", f'status="True",{HERE}'), "{{condition}}")], span=WIDE,
                ),
                Panel(
                    "Since conversations were handed on",
                    [(f"time() - max by (namespace, validator) ({operator.DATASETS_WRITTEN.name}{{{HERE}}})",
                      "{{namespace}}/{{validator}}")], "s",
                ),
                Panel(
                    "Miners' fetches and reports of tasks",
                    [(rate(gateway.TASK_REQUESTS, "what, code", HERE), "{{what}} {{code}}")], "ops",
                ),
            ),
            "New versions": (
                Panel(
                    "Twins by what stands of a new version",
                    [(objects("DoctorTwin", "condition, status", f'condition=~"AdaptersVerified|GatePassed|Progressing",{HERE}'),
                      "{{condition}}={{status}}")],
                ),
                Panel(
                    "Exchanges kept to learn from", [(rate(gateway.RECORDS, "outcome", HERE), "{{outcome}}")], "ops"
                ),
            ),
        },
        [("namespace", operator.CONDITIONS.name)],
    ),
    Board(
        "validation", "BetterTherapy: validation", "Gateways, the miners that they ask, and rounds.",
        {
            "Questions": (
                Panel("Questions", [(rate(gateway.REQUESTS, "code", HERE), "{{code}}")], "reqps"),
                Panel(
                    "Answered within",
                    [
                        (quantile(0.95, gateway.REQUEST_SECONDS, "", HERE), "95%"),
                        (quantile(0.95, gateway.ADDED_SECONDS, "", HERE), "95%, of it the gateway's own"),
                    ],
                    "s",
                ),
                Panel("In work now", [(f"sum by (pod) ({gateway.IN_FLIGHT.name}{{{HERE}}})", "{{pod}}")]),
                Panel("Emergency notices", [(rate(gateway.EMERGENCIES, "kind", HERE), "{{kind}}")], "ops"),
                Panel(
                    "Answers held back", [(f"sum(rate({gateway.ANSWERS_HELD_BACK.name}{{{HERE}}}{WINDOW}))", "answers")],
                    "ops",
                ),
            ),
            "Miners": (
                Panel(
                    "Miners with an address", [(f"max by (namespace) ({gateway.MINERS.name}{{{HERE}}})", "{{namespace}}")],
                    span=SMALL, figure=True,
                ),
                Panel(
                    "Twins announced", [(f"max by (namespace) ({gateway.TWINS.name}{{{HERE}}})", "{{namespace}}")],
                    span=SMALL, figure=True,
                ),
                Panel("What came of asking them", [(rate(gateway.MINER_ANSWERS, "outcome", HERE), "{{outcome}}")], "ops"),
                Panel(
                    "95% of a miner's answers within",
                    [(quantile(0.95, gateway.MINER_SECONDS, "hotkey", HERE), "{{hotkey}}")], "s",
                ),
                Panel("Signed requests at miners", [(rate(miner.SIGNED_REQUESTS, "outcome", HERE), "{{outcome}}")], "ops"),
                Panel("Receipts signed", [(rate(miner.RECEIPTS, "pool", HERE), "{{pool}}")], "ops"),
            ),
            "Ledger and rounds": (
                Panel("Records", [(rate(gateway.RECORDS, "outcome", HERE), "{{outcome}}")], "ops"),
                Panel("Not in the ledger yet", [(f"max by (pod) ({gateway.LEDGER_WAITING.name}{{{HERE}}})", "{{pod}}")]),
                Panel(
                    "Rounds by condition",
                    [(objects("ValidatorRound", "condition, status", HERE), "{{condition}}={{status}}")], span=WIDE,
                ),
            ),
        },
        [("namespace", gateway.MINERS.name)],
    ),
)  # fmt: skip


def _panel(given: Panel, number: int) -> Any:
    made = stat.Panel() if given.figure else timeseries.Panel()
    made = made.id(number).title(given.title).unit(given.unit).datasource(SOURCE).height(HEIGHT).span(given.span)
    if given.about:
        made = made.description(given.about)
    for letter, (expr, legend) in zip("ABC", given.queries, strict=False):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter)
        made = made.with_target(query.instant() if given.figure else query.range().exemplar(True))
    return made


def _variable(name: str, series: str, before: Sequence[str]) -> Any:
    where = ",".join(f'{each}=~"${each}"' for each in before)
    return (
        dashboards.QueryVariable(name)
        .query(f"label_values({series}{{{where}}}, {name})")
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def build(board: Board) -> str:
    """Return a dashboard as Grafana imports it."""
    made = (
        dashboards.Dashboard(board.title)
        .uid(f"bettertherapy-{board.name}")
        .description(board.about)
        .tags(["bettertherapy"])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .readonly()
        .with_variable(dashboards.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for number, (name, series) in enumerate(board.variables):
        made = made.with_variable(_variable(name, series, [each for each, _ in board.variables[:number]]))
    numbers = itertools.count(1)
    for title, panels in board.rows.items():
        made = made.with_row(dashboards.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_panel(panel, next(numbers)))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True, indent=1).encode(made.build())), indent=1) + "\n"


def files() -> dict[str, str]:
    """Return name and text of each dashboard's file."""
    return {f"{board.name}.json": build(board) for board in BOARDS}
