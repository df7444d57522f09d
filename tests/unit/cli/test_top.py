"""`kubectl twin top`: each twin's load from the pods' pages or from Prometheus, in 80 columns."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from kubectl_twin.errors import TwinCliError
from kubectl_twin.finetune import Clock
from kubectl_twin.render_top import top_table
from kubectl_twin.top import Readings, Sample, Top, queries, read_pods, read_prometheus, samples_of, top
from neurons.miner.metrics import Metrics

from .objects import Json

ENGINE = """\
# HELP vllm:lora_requests_info Running stats on LoRA requests.
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="8",running_lora_adapters="",waiting_lora_adapters=""} 1700000000.0
vllm:lora_requests_info{max_lora="8",running_lora_adapters="dr-a-aaaaaaaa,dr-b-bbbbbbbb",waiting_lora_adapters=""} 1700000009.0
vllm:num_requests_running{engine="0",model_name="base"} 2.0
"""  # noqa: E501


def pod(name: str, *, ready: bool = True) -> Json:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": name}, "status": {"phase": "Running", "conditions": conditions}}


def twin(name: str, **pods: int) -> Json:
    return {"metadata": {"name": name}, "status": {"pods": pods} if pods else {}}


def page(metrics: Metrics) -> str:
    return metrics.render().decode()


def ask(metrics: Metrics, name: str, *, times: int, seconds: float = 0.2, code: str = "200") -> None:
    for _ in range(times):
        metrics.count(name, f"{name}-{name[-1] * 8}", code)
        metrics.series(name, f"{name}-{name[-1] * 8}").request_seconds.observe(seconds)


class Pods:
    """An API server of which only pods and their pages are known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pages: Mapping[str, Any]) -> None:
        self.pages, self.now = pages, 0.0
        self.clock = Clock(now=lambda: self.now, sleep=self._sleep)
        self.slept = lambda: None
        monkeypatch.setattr("kubectl_twin.top.fetch", lambda forward, *_, **__: self._page(forward.pod))

    def items(self, path: str, *, labels: str | None = None) -> list[Json]:
        assert path.endswith("/namespaces/clinic/pods")
        assert labels == "bettertherapy.io/component in (miner,engine)"
        return [*(pod(name) for name in self.pages), pod("down", ready=False)]

    def forward(self, *, namespace: str, pod: str, port: int) -> Any:
        assert (namespace, port) == ("clinic", 8081)
        return type("Forward", (), {"pod": pod, "close": lambda _: None})()

    def _page(self, name: str) -> bytes:
        made = self.pages[name]
        if made is None:
            raise TwinCliError("The connection broke.")
        return (page(made) if isinstance(made, Metrics) else str(made)).encode()

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept()


def test_what_was_counted_between_two_looks_at_the_pods_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Metrics(), Metrics()
    ask(first, "dr-a", times=50, seconds=9.0, code="500")  # before
    api = Pods(monkeypatch, {"m-1": first, "m-2": second, "e-1": ENGINE, "e-2": None})

    def meanwhile() -> None:
        ask(first, "dr-a", times=9)
        ask(second, "dr-a", times=10)
        ask(second, "dr-a", times=1, code="broken")
        second.series("dr-a", "dr-a-aaaaaaaa").in_flight.set(3)
        second.count("", "", "404")

    api.slept = meanwhile
    readings = read_pods(api, namespace="clinic", seconds=5, clock=api.clock)  # type: ignore[arg-type]
    found = top(readings, [twin("dr-b", desired=2, verified=1), twin("dr-a", desired=2, loaded=2, verified=2)])
    busy, idle = found.rows
    assert (busy.twin, busy.per_second, busy.error_share, busy.in_flight) == ("dr-a", 4.0, 0.05, 3)
    assert busy.p95_seconds == pytest.approx(0.1 + 0.95 * 0.15)
    assert (busy.pods, busy.slots) == ("2/2", 1)
    assert (idle.twin, idle.per_second, idle.p95_seconds, idle.error_share) == ("dr-b", 0.0, None, None)
    assert (found.slots_taken, found.slots) == (2, 8)
    assert readings.unread == {"e-2": "The connection broke."}


def test_a_miner_that_began_anew_meanwhile_counts_what_it_says() -> None:
    before, after = Metrics(), Metrics()
    ask(before, "dr-a", times=100)
    ask(after, "dr-a", times=5)
    from kubectl_twin.top import _risen

    assert _risen(100.0, 5.0) == 5.0
    assert _risen(None, 5.0) == 5.0
    assert _risen(3.0, 5.0) == 2.0


def test_without_a_pod_that_can_be_read_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Pods(monkeypatch, {})
    with pytest.raises(TwinCliError, match="No miner and no engine is ready in namespace clinic"):
        read_pods(nobody, namespace="clinic", seconds=5, clock=nobody.clock)  # type: ignore[arg-type]
    broken = Pods(monkeypatch, {"m-1": None})
    with pytest.raises(TwinCliError, match=r"No pod's metrics can be read; m-1: The connection broke\."):
        read_pods(broken, namespace="clinic", seconds=5, clock=broken.clock)  # type: ignore[arg-type]


def test_prometheus_is_asked_for_the_same() -> None:
    answers = {
        "requests_total": [({"twin": "dr-a", "code": "200"}, "600"), ({"twin": "dr-a", "code": "503"}, "NaN")],
        "bucket": [({"twin": "dr-a", "le": "1.0"}, "600"), ({"twin": "dr-a", "le": "+Inf"}, "600")],
        "in_flight": [({"twin": "dr-a"}, "2")],
        "lora": [({"pod": "e-1", "max_lora": "4", "running_lora_adapters": "dr-a-aaaaaaaa"}, "1")],
    }

    def asked(url: str, promql: str) -> Any:
        found = next(series for part, series in answers.items() if part in promql)
        result = [{"metric": labels, "value": [0, value]} for labels, value in found]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    readings = read_prometheus("http://prometheus:9090", namespace="clinic", ask=asked)
    [row] = top(readings, []).rows
    assert (row.per_second, row.error_share, row.in_flight, row.slots, row.pods) == (2.0, 0.0, 2, 1, "-")
    assert row.p95_seconds == pytest.approx(0.95)
    assert all('namespace="clinic"' in promql for promql in queries("clinic").values())


def test_what_is_no_prometheus_is_told_without_its_password() -> None:
    with pytest.raises(TwinCliError, match=r"Prometheus at host:1/x doesn't answer as a Prometheus does"):
        read_prometheus("http://me:secret@host:1/x", namespace="clinic", ask=lambda *_: {"error": "x"})
    with pytest.raises(TwinCliError, match="is no address of a Prometheus"):
        read_prometheus("file:///etc/passwd", namespace="clinic")
    with pytest.raises(TwinCliError, match="doesn't answer"):
        read_prometheus("http://127.0.0.1:1", namespace="clinic")


def test_a_page_that_is_none_is_refused_and_other_series_are_not_read() -> None:
    assert {sample.name for sample in samples_of(ENGINE, "e-1")} == {"vllm:lora_requests_info"}
    with pytest.raises(ValueError, match=r"."):
        samples_of("vllm:lora_requests_info{", "e-1")


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("long", ["d" * 30, "dr-maria-del-carmen-fernandez-rodriguez-of-santa-cruz-clinic-12"])
def test_the_table_fits_and_cuts_no_name(long: str, width: int) -> None:
    readings = Readings(
        seconds=5.0,
        counted=[
            Sample("bettertherapy_miner_requests_total", {"twin": each, "code": "500"}, 123456.0)
            for each in (long, "_other", "dr-a")
        ],
        standing=[],
        unread={f"pod-{number}": "The connection broke." for number in range(7)},
    )
    stream = io.StringIO()
    found = top(readings, [twin("idle")])
    Console(file=stream, width=width, color_system=None).print(top_table(found, readings))
    lines = stream.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= max(width, len(long))
    assert len(long) > width or any(line.split()[0] == long for line in lines)
    if len(long) < 40 and width == 80:
        assert lines[0].split() == ["TWIN", "REQ/S", "P95", "ERRORS", "NOW", "PODS", "SLOTS"]
        assert any(line.split() == ["idle", "0.00", "-", "-", "0", "-", "-"] for line in lines)
    else:
        assert "idle" in lines
        assert "req/s 0.00 · p95 - · errors - · now 0 · pods - · slots -" in " ".join("".join(lines).split())
    assert any(line.startswith("(others)") for line in lines)
    assert "… and 2 more" in lines[-1]


def test_nothing_at_all_is_an_empty_table() -> None:
    assert top(Readings(seconds=0.0, counted=[], standing=[]), []) == Top([], 0, 0)
