"""The program that `helm test` runs for a miner, against small servers that behave well or badly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "charts" / "twin-miner" / "files" / "helm_test.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


class Miner(BaseHTTPRequestHandler):
    """A miner with one twin; `guarded` and `text` say how it behaves."""

    guarded = True
    text = "Drink water and rest."

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def _answer(self, status: int, document: dict, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def do_GET(self) -> None:
        """/v1/models."""
        if self.guarded and self.headers["Authorization"] != "Bearer tok":
            self._answer(401, {})
        else:
            self._answer(200, {"data": [{"id": "dr-a"}]})

    def do_POST(self) -> None:
        """/v1/chat/completions."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] != "dr-a":
            self._answer(404, {"error": "no such twin"})
        else:
            choice = {"message": {"content": self.text}}
            self._answer(200, {"choices": [choice]}, x_twin_adapter_digest="sha256:abc")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run the test program: `run(handler, twin="dr-a")`."""
    (tmp_path / "client").write_text("tok\n")
    servers = []

    def start(handler: type[Miner], *, twin: str = "dr-a") -> subprocess.CompletedProcess[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            "MINER_URL": f"http://127.0.0.1:{server.server_port}", "TWIN": twin, "QUESTION": "q",
            "TIMEOUT_SECONDS": "10", "ACCESS_DIR": str(tmp_path), "PATH": os.environ["PATH"],
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-c", SCRIPT.read_text()], env=env, capture_output=True, text=True, timeout=30, check=False
        )

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_passes_when_the_twin_answers(run: Run) -> None:
    done = run(Miner)
    assert done.returncode == 0, done.stderr
    assert "dr-a (sha256:abc) answers: Drink water and rest." in done.stdout


def test_fails_when_strangers_are_answered(run: Run) -> None:
    done = run(type("Open", (Miner,), {"guarded": False}))
    assert done.returncode != 0
    assert "anyone who reaches it may ask" in done.stderr


def test_fails_when_the_answer_is_empty(run: Run) -> None:
    done = run(type("Empty", (Miner,), {"text": " "}))
    assert done.returncode != 0
    assert "empty text" in done.stderr


def test_fails_when_the_twin_is_unknown(run: Run) -> None:
    done = run(Miner, twin="dr-b")
    assert done.returncode != 0
    assert "answered 404" in done.stderr
