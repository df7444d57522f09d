from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from bettertherapy_api.manifest import BaseModelEntry, Fingerprint, Lineage
from neurons.store import verify_folder
from neurons.trainer.__main__ import main
from neurons.trainer.errors import PublishFailed
from neurons.trainer.publish import publish


def arguments(tmp_path: Path, dataset: Path) -> list[str]:
    return [
        "train",
        *("--base-model", str(tmp_path / "model"), "--base-model-name", "m"),
        *("--dataset", str(dataset), "--output", str(tmp_path / "out")),
        *("--twin", "dr-who", "--store", f"file://{tmp_path}/store"),
    ]


def test_a_failure_is_the_last_line_and_the_termination_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    assert main(arguments(tmp_path, tmp_path / "nowhere.jsonl"), termination_log=log) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["failure"]["class"] == "BadData"
    assert last["failure"]["retryable"] is False
    assert json.loads(log.read_text()) == last


def test_outside_a_pod_no_termination_log_is_made(tmp_path: Path) -> None:
    main(arguments(tmp_path, tmp_path / "nowhere.jsonl"), termination_log=tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "option", [("--steps", "0"), ("--rank", "-1"), ("--learning-rate", "nan"), ("--base-model-digest", "abc")]
)
def test_impossible_arguments_are_refused(option: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments(tmp_path, tmp_path / "x"), *option])
    assert caught.value.code == 2


def peft_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    half = {"dtype": "F32", "shape": [4, 4]}
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    header = json.dumps(
        {
            f"{module}.lora_A.weight": half | {"data_offsets": [0, 64]},
            f"{module}.lora_B.weight": half | {"data_offsets": [64, 128]},
        }
    ).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(128))
    return folder


FINGERPRINT = Fingerprint(token_ids=(1, 2), logprobs=(-1.0,))
LINEAGE = Lineage(dataset_digest="sha256:" + "1" * 64, seed=3)


def test_what_is_published_carries_lineage_and_fingerprint(tmp_path: Path) -> None:
    artifact = publish(
        peft_folder(tmp_path),
        store=f"file://{tmp_path}/store",
        twin="dr-who",
        base_model=BaseModelEntry(name="m"),
        fingerprint=FINGERPRINT,
        lineage=LINEAGE,
    )
    manifest = verify_folder(Path(artifact.uri.removeprefix("file://")), artifact.digest)
    assert (manifest.lineage, manifest.fingerprint, manifest.rank) == (LINEAGE, FINGERPRINT, 4)


def test_a_store_that_may_come_back_makes_the_run_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(PublishFailed) as caught:
        publish(
            peft_folder(tmp_path),
            store="s3://bucket/adapters",
            twin="dr-who",
            base_model=BaseModelEntry(name="m"),
            fingerprint=FINGERPRINT,
            lineage=LINEAGE,
        )
    assert caught.value.retryable
