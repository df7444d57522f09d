"""A checkpoint that can't be written costs the steps that an interruption would lose, and not the training."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.archive import Archive
from neurons.trainer.checkpoints import Checkpoints

torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")

FULL = [
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 128 vs 22"),
]
"""What Python's and torch's own writer raise."""


@pytest.mark.parametrize("fault", FULL)
def test_a_full_disk_leaves_the_checkpoint_before_and_ends_nothing(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    archive = Archive(f"file://{tmp_path}/store", "dr-a")
    checkpoints = Checkpoints(archive, "night-1", identity="this one")
    checkpoints.keep({"losses": [2.0]})

    def save(_: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise fault

    with monkeypatch.context() as full:
        full.setattr(torch, "save", save)
        checkpoints.keep({"losses": [2.0, 1.0]})
    assert "the checkpoint is not kept" in caplog.text
    assert checkpoints.load() == {"losses": [2.0]}
    assert asyncio.run(archive.checkpoint("night-1", tmp_path / "copy"))
