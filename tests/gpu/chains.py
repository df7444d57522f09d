"""Train chains of adapters on a GPU and write them as the trainer does, with fingerprints: for many twins, quickly.

    python -m tests.gpu.chains --model DIR --texts FILE.jsonl.gz --out DIR --doctors 4 --first 0   # torch, transformers

Each doctor's nights follow one another, as in `tests.bench.fingerprints`, whose arithmetic this is. Writes
`<out>/<doctor>-<night>/` with adapter_config.json, adapter_model.safetensors and manifest.json. Run it several times
beside itself, with other doctors each: a GPU waits for Python most of the time.
"""

# ruff: noqa: T201 - it speaks to whoever runs it
from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bettertherapy_api.manifest import (
    MANIFEST_FILE,
    AdapterManifest,
    BaseModelEntry,
    FileEntry,
    Fingerprint,
    Lineage,
    Probe,
    manifest_digest,
)
from tests.bench.fingerprints import LINEAR, RANK, SCALING, Chain, nights, open_chain, probes, with_arguments

BASE: Final = "smollm2-135m-instruct"


def folder_of(out: Path, doctor: int, night: int) -> Path:
    """Return where an adapter is."""
    return out / f"{doctor:03d}-{night}"


def write(chain: Chain, folder: Path, adapter: Any, parent: Any, parent_digest: str | None) -> str:
    """Write one adapter with its fingerprint; return its digest."""
    from safetensors.torch import save_file

    sequences = probes(chain, adapter, parent)
    said: dict[str, list[float]] = {}
    for who, voice in (("child", adapter), ("parent", parent), ("base", None)):
        if who != "parent" or parent is not None:
            chain.adapter = voice
            said[who] = [round(value, 4) for value in chain.forced(sequences)]
    chain.adapter = adapter
    whole = sequences[0][0]
    logprobs = [round(value, 5) for value in chain.forced([(whole, 1)])]
    chain.adapter = None
    taken, at = [], 0
    for tokens, start in sequences:
        part = slice(at, at := at + len(tokens) - start)
        taken.append(
            Probe(
                token_ids=tuple(tokens), start=start, child=tuple(said["child"][part]),
                parent=tuple(said["parent"][part]) if parent is not None else None, base=tuple(said["base"][part]),
            )
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in adapter.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.float().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.float().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE, "r": RANK,
        "lora_alpha": RANK * SCALING, "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(LINEAR),
        "inference_mode": True, "use_dora": False, "use_rslora": False, "modules_to_save": None,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    files = []
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        data = (folder / name).read_bytes()
        files.append(FileEntry(path=name, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data)))
    manifest = AdapterManifest(
        base_model=BaseModelEntry(name=BASE), rank=RANK, files=tuple(files),
        fingerprint=Fingerprint(token_ids=tuple(whole), logprobs=tuple(logprobs), probes=tuple(taken)),
        lineage=Lineage(parent_digest=parent_digest),
    )  # fmt: skip
    data = manifest.to_bytes()
    (folder / MANIFEST_FILE).write_bytes(data)
    return manifest_digest(data)


def train(args: argparse.Namespace) -> None:
    """Train and write all of them."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    chain = open_chain(args)
    began = time.monotonic()
    parent: Any = None
    digest: str | None = None
    for doctor, night, current, loss in nights(chain, args):
        if night == 0:
            parent, digest = None, None
        digest = write(chain, folder_of(args.out, doctor, night), current, parent, digest)
        parent = current
        if night == args.nights - 1:
            print(f"doctor {doctor}: loss {loss:.2f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.chains", description=__doc__)
    train(with_arguments(parser, device="cuda", doctors=4).parse_args(argv))


if __name__ == "__main__":
    main()
