"""What is told of a training: to a real MLflow server, in TensorBoard's files, and to nobody who is away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.archive import Archive
from neurons.trainer.arguments import parser
from neurons.trainer.errors import OutOfMemory, Preempted
from neurons.trainer.tracking import Mlflow, Point, TensorBoard, Tracking

PARAMS = {"rank": 16, "learning_rate": 2e-4, "quantization": None}
TAGS = {"twin": "dr-who", "dataset": "sha256:" + "a" * 64}


class Listening:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        self.told.append(("begin", name))

    def write(self, points: list[Point]) -> None:
        self.told += [(number, dict(values)) for number, _, values in points]

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        self.told.append(("end", status, dict(tags)))


class Failing(Listening):
    """One that takes nothing."""

    def write(self, points: list[Point]) -> None:
        super().write(points)
        raise OSError("a patient's words")


class Hanging(Listening):
    """One that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def begin(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        self.let.wait(30)


def trained(tracking: Tracking, *, steps: int = 3) -> None:
    tracking.begin("dr-who/night-1", PARAMS, TAGS)
    for number in range(1, steps + 1):
        tracking.step(number, loss=1 / number, distance=None if number == 1 else 0.1)
    tracking.end("FINISHED", adapter="sha256:" + "b" * 64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow tracking server."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files"),
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}, start_new_session=True,
        stdout=(folder / "log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 100
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait(timeout=10)


def asked(server: str, path: str, **fields: object) -> dict[str, object]:
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/{path}",
        data=json.dumps(fields).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        found: dict[str, object] = json.load(response)
        return found


def runs_of(server: str, name: str) -> list[dict[str, object]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("nights")
    assert experiment is not None
    return [
        {
            "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
            "loss": [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")],
            "distance": [point.step for point in client.get_metric_history(run.info.run_id, "distance")],
        }
        for run in client.search_runs([experiment.experiment_id], filter_string=f"tags.`bettertherapy.run` = '{name}'")
    ]  # fmt: skip


@pytest.mark.timeout(180)
def test_a_real_server_has_the_runs_curves_and_another_attempt_goes_on_with_them(server: str) -> None:
    with Tracking({"MLflow": Mlflow(server, "nights")}, pause_seconds=0.01) as tracking:
        tracking.begin("dr-who/night-1", PARAMS, TAGS)
        tracking.step(1, loss=2.0)
        tracking.end("KILLED")
    assert [run["status"] for run in runs_of(server, "dr-who/night-1")] == ["KILLED"]
    with Tracking({"MLflow": Mlflow(server, "nights")}, pause_seconds=0.01) as tracking:
        tracking.begin("dr-who/night-1", PARAMS, TAGS)
        tracking.step(2, loss=1.0, distance=0.25)
        tracking.end("FINISHED", adapter="sha256:b")
    (run,) = runs_of(server, "dr-who/night-1")
    assert (run["status"], run["loss"], run["distance"]) == ("FINISHED", [(1, 2.0), (2, 1.0)], [2])
    assert run["params"] == {"rank": "16", "learning_rate": "0.0002"}
    tags = run["tags"]
    assert isinstance(tags, dict)
    assert (tags["twin"], tags["adapter"]) == ("dr-who", "sha256:b")


@pytest.mark.timeout(180)
def test_nights_of_one_name_in_two_namespaces_are_two(server: str) -> None:
    for namespace in ("clinic", "hospital"):
        sink = Mlflow(server, "nights", environment={"POD_NAMESPACE": namespace})
        with Tracking({"MLflow": sink}, pause_seconds=0.01) as tracking:
            trained(tracking, steps=1)
    for namespace in ("clinic", "hospital"):
        assert [run["loss"] for run in runs_of(server, f"{namespace}/dr-who/night-1")] == [[(1, 1.0)]]


@pytest.mark.timeout(180)
def test_more_points_than_a_server_takes_at_once_come_in_parts(server: str) -> None:
    with Tracking({"MLflow": Mlflow(server, "nights")}, pause_seconds=0.01) as tracking:
        trained(tracking, steps=1500)
    assert len(runs_of(server, "dr-who/night-1")) == 1
    (run,) = runs_of(server, "dr-who/night-1")
    loss = run["loss"]
    assert isinstance(loss, list)
    assert {step for step, _ in loss} >= set(range(1, 1501))


class Odd:
    """A tracking server that answers in its own way, and keeps what it is asked."""

    def __init__(self, *, parts: int = 1, missing: str = "?", answer: bytes | None = None) -> None:
        """It answers in so many parts, with 404 where `missing` is in the path, and always `answer` if there is one."""
        self.asked: list[tuple[str, str | None]] = []
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                path = self.path.partition("?")[0].partition("/mlflow/")[2]
                self.rfile.read(int(self.headers.get("content-length") or 0))
                odd.asked.append((path, self.headers.get("authorization")))
                told = {
                    "experiments/get-by-name": {"experiment": {"experiment_id": "1"}}, "runs/search": {},
                    "runs/create": {"run": {"info": {"run_id": "r"}}},
                }.get(path, {})  # fmt: skip
                data = answer or json.dumps(told).encode()
                self.send_response(404 if missing in path else 200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                length = -(-len(data) // parts)
                for start in range(0, len(data), length):
                    part = data[start : start + length]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    time.sleep(0.01)  # or the parts would come as one
                self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST  # noqa: N815 - as the base class will have it

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Odd:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, **credentials: str) -> list[str]:
        """Tell it of a training; returns what was asked of it."""
        environment = {f"MLFLOW_TRACKING_{name.upper()}": value for name, value in credentials.items()}
        sink = Mlflow(self.address, environment=environment)
        with Tracking({"MLflow": sink}, pause_seconds=0.01) as tracking:
            trained(tracking)
        return [path for path, _ in self.asked]


def test_an_answer_that_comes_in_parts_is_read_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    with Odd(parts=4) as server:
        assert server.told()[-1] == "runs/update"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("credentials", "sent", "warned"),
    [
        ({"token": "secret\n"}, "Bearer secret", ""),
        ({"username": "dr\n", "password": "पास\n"}, "Basic ZHI64KSq4KS+4KS4", ""),
        ({"username": "d:r", "password": "secret"}, None, "MLFLOW_TRACKING_USERNAME holds a colon"),
        ({"token": "sec\nret"}, None, "MLFLOW_TRACKING_TOKEN holds what no header may"),
    ],
)
def test_credentials_that_are_none_end_no_training(
    credentials: dict[str, str], sent: str | None, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Odd() as server:
        server.told(**credentials)
    assert {header for _, header in server.asked} == ({sent} if sent else set())
    assert warned in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"missing": "log-batch"}, "runs/log-batch was answered with status 404"),
        ({"answer": b"<html>a patient's words"}, "this is no MLflow tracking server"),
        ({"answer": b'{"a": "' + b"a" * 2**21 + b'"}'}, "answered with more than 1 MiB"),
    ],
)
def test_what_a_server_did_not_take_is_said(odd: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture) -> None:
    with Odd(**odd) as server:
        server.told()
    assert told in caplog.text
    assert "patient" not in caplog.text


def test_a_server_that_is_away_delays_nothing_and_is_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    beside, begun = Listening(), time.monotonic()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = Mlflow(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with Tracking({"MLflow": away, "beside": beside}, pause_seconds=0.01) as tracking:
            trained(tracking)
            assert time.monotonic() - begun < 1
    assert ("end", "FINISHED", {"adapter": "sha256:" + "b" * 64}) in beside.told
    assert "tracking: MLflow did not take it" in caplog.text


def test_what_a_sink_says_of_its_failure_is_not_logged_and_it_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing()
    tracking = Tracking({"failing": failing}, pause_seconds=0.001)
    with tracking:
        tracking.begin("dr-who/night-1", {}, {})
        for number in range(1, 200):
            tracking.step(number, loss=1.0)
            if "told no more" in caplog.text:
                break
            time.sleep(0.01)
        seen = len(failing.told)
        tracking.step(1000, loss=1.0)
    assert "told no more" in caplog.text
    assert "patient" not in caplog.text
    assert len(failing.told) == seen


def test_a_sink_that_hangs_holds_nobody_up_but_for_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurons.trainer.tracking._LAST_WORD_SECONDS", 0.2)
    hanging, begun = Hanging(), time.monotonic()
    with Tracking({"hanging": hanging}, pause_seconds=0.01) as tracking:
        trained(tracking, steps=1000)
    assert time.monotonic() - begun < 10
    hanging.let.set()


def test_nothing_is_told_of_a_run_that_did_not_train() -> None:
    sink = Listening()
    with Tracking({"sink": sink}, pause_seconds=0.01) as tracking:
        tracking.step(1, loss=1.0)
        tracking.end("FAILED", failure="BadData")
    assert sink.told == []


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (OutOfMemory("memory ran out"), ("FAILED", "OutOfMemory")), (Preempted("told to end"), ("KILLED", "Preempted")),
        (ZeroDivisionError("a patient's words"), ("FAILED", "ZeroDivisionError")),
    ],
)  # fmt: skip
def test_a_training_that_breaks_off_is_told_by_its_class(error: Exception, ended: tuple[str, str]) -> None:
    sink = Listening()

    def broken_off() -> None:
        with Tracking({"sink": sink}, pause_seconds=0.01) as tracking:
            tracking.begin("dr-who/night-1", PARAMS, TAGS)
            raise error

    with pytest.raises(type(error)):
        broken_off()
    assert sink.told == [("begin", "dr-who/night-1"), ("end", ended[0], {"failure": ended[1]})]


def test_points_come_in_order_and_before_the_end() -> None:
    sink = Listening()
    with Tracking({"sink": sink}, pause_seconds=0.01) as tracking:
        trained(tracking)
    assert sink.told == [
        ("begin", "dr-who/night-1"), (1, {"loss": 1.0}), (2, {"loss": 0.5, "distance": 0.1}),
        (3, {"loss": 1 / 3, "distance": 0.1}), ("end", "FINISHED", {"adapter": "sha256:" + "b" * 64}),
    ]  # fmt: skip


def test_event_files_in_the_twins_folder_hold_the_curves(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    archive = Archive(f"file://{tmp_path}/store", "dr-who")
    for attempt in range(2):
        sink = TensorBoard(archive, tmp_path / f"work{attempt}")
        with Tracking({"TensorBoard": sink}, pause_seconds=0.01) as tracking:
            trained(tracking)
    files = list((tmp_path / "store" / "dr-who" / "tensorboard" / "night-1").iterdir())
    assert len(files) == 2  # TensorBoard shows them as one run
    seen = []
    data = files[0].read_bytes()
    while data:  # records of TFRecord: length, its checksum, bytes, their checksum
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        seen += [(event.step, value.tag, round(value.simple_value, 3)) for value in event.summary.value]
    assert [each for each in seen if each[1] == "loss"] == [(1, "loss", 1.0), (2, "loss", 0.5), (3, "loss", 0.333)]
    assert seen[-1][1] == "ended/text_summary", "what came last is there too"


@pytest.mark.parametrize(
    "address", ["ftp://mlflow", "http://user:word@mlflow:5000", "http://mlflow/?token=1", "http://", "mlflow:5000"]
)
def test_an_address_that_is_none_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        "run",
        "--run=r",
        "--base-model=/m",
        "--base-model-name=m",
        "--twin=t",
        "--store=file:///s",
        "--dataset-uri=file:///d",
    ]
    with pytest.raises(SystemExit):
        parser().parse_args([*told, f"--mlflow-endpoint={address}"])
    assert "is no address" in capsys.readouterr().err
