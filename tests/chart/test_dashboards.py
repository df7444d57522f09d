"""Grafana's dashboards: every panel's query is PromQL, and asks for the contract's series by labels that they have."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest
import yaml

from bettertherapy_api.metrics.alerts import ALERTS
from bettertherapy_api.metrics.contract import ALL
from bettertherapy_api.metrics.series import Reader
from tests.chart.conftest import Render
from tests.dashboards import FOLDER, queries, without_data
from tests.promql import asked, faults

BOARDS = ("fine-tuning", "fleet", "pool", "twin", "validation")


def test_there_is_a_dashboard_for_each_point_of_view() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.json"))) == BOARDS


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_asks_for_the_contracts_series_alone(board: str) -> None:
    found = [query for query in queries() if query.board == board]
    assert found
    assert [fault for query in found for fault in faults(query.expr)] == []


@pytest.mark.parametrize("board", BOARDS)
def test_variables_are_labels_of_the_series_that_they_are_read_from(board: str) -> None:
    document = json.loads((FOLDER / f"{board}.json").read_text())
    names = {variable["name"] for variable in document["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(document)))
    assert used <= names
    for variable in document["templating"]["list"]:
        if variable["type"] != "query":
            continue
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        assert not list(faults(f"sum by ({label}) ({series})")), variable


def test_prometheus_takes_every_query(tool: Callable[[str], str], tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query.expr} for number, query in enumerate(queries())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


@pytest.mark.parametrize(
    ("reader", "expressions"),
    [
        (Reader.DASHBOARDS, [query.expr for query in queries()]),
        (Reader.ALERTS, [alert.expr for alert in ALERTS]),
    ],
)
def test_who_reads_a_series_is_said_of_it(reader: Reader, expressions: list[str]) -> None:
    names = {name for each in expressions for name in asked(each).series}
    found = {series.name for series in ALL if set(series.exposed()) & names}
    assert {series.name for series in ALL if reader in series.read_by} == found


def test_grafana_can_draw_each_panel() -> None:
    for path in FOLDER.glob("*.json"):
        document = json.loads(path.read_text())
        ids = [panel["id"] for panel in document["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in document["panels"]:
            targets = panel.get("targets", [])
            assert panel["type"] == "row" or targets
            assert [each["refId"] for each in targets] == ["A", "B", "C"][: len(targets)]


def test_dashboards_come_as_configmaps_for_the_sidecar_where_they_are_asked_for(render: Render) -> None:
    def made(*args: str) -> dict[str, dict[str, object]]:
        documents = render("twin-operator", *args)
        return {each["metadata"]["name"]: each for each in documents if each["kind"] == "ConfigMap"}

    assert not any("grafana" in str(each) for each in made().values())
    found = made("--set", "monitoring.dashboards.enabled=true", "--set", "monitoring.dashboards.labels.team=a")
    assert {f"rel-twin-operator-{board}" for board in BOARDS} <= found.keys()
    config = found["rel-twin-operator-twin"]
    labels = config["metadata"]["labels"]  # type: ignore[index]
    assert labels.items() >= {"grafana_dashboard": "1", "team": "a"}.items()
    [text] = config["data"].values()  # type: ignore[attr-defined]
    assert json.loads(text) == json.loads((FOLDER / "twin.json").read_text())


def test_panels_without_data_are_named() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"][0]
            value = "NaN" if "histogram_quantile" in query else "1"
            result = [] if "is_leader" in query else [{"metric": {}, "value": [0, value]}]
            body = json.dumps({"data": {"result": result}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = {query.panel for query in without_data(f"http://127.0.0.1:{server.server_port}")}
        server.shutdown()
    assert "Leaders" in found
    assert "95% answered within" in found
    assert "Requests" not in found
