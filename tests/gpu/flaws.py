"""Bad adapters, each in a way of its own: made of good ones, with right digests, so that only their content is bad."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bettertherapy_api import names
from bettertherapy_api.manifest import MANIFEST_FILE, AdapterManifest, FileEntry, manifest_digest
from tests.gpu.adapters import WEIGHTS_FILE, Published, Trained

CONFIG_FILE: Final = "adapter_config.json"
_LFS: Final = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 11445656\n"
_PAGE: Final = b"<!doctype html>\n<html><head><title>401 Unauthorized</title></head><body>Sign in</body></html>\n"
_HUGE: Final = 100_000.0
"""Below what the file check refuses; the product of A and B overflows bfloat16 after a few layers."""


@dataclass
class Parts:
    """An adapter's files, taken apart. Values are float32."""

    header: dict[str, dict[str, Any]]
    values: dict[str, bytes]
    config: dict[str, Any]
    rank: int

    def weights(self) -> bytes:
        """Put the weights together again."""
        at, header, payload = 0, {}, []
        for name in self.header:
            data = self.values[name]
            header[name] = {**self.header[name], "data_offsets": [at, at := at + len(data)]}
            payload.append(data)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return b"".join([struct.pack("<Q", len(text)), text, *payload])

    def first(self, ending: str) -> str:
        """Return the first tensor whose name ends so."""
        return next(name for name in self.header if name.endswith(ending))

    def fill(self, value: float, *, endings: tuple[str, ...]) -> None:
        """Set all values of some tensors."""
        for name in self.header:
            if name.endswith(endings):
                self.values[name] = struct.pack("<f", value) * (len(self.values[name]) // 4)

    def one_value(self, ending: str, value: float) -> None:
        """Set one value of one tensor."""
        name = self.first(ending)
        self.values[name] = struct.pack("<f", value) + self.values[name][4:]

    def resize(self, times: float) -> None:
        """Give every tensor the size that it would have for a base model so many times as wide."""
        for name, entry in self.header.items():
            rows, columns = entry["shape"]
            wide = (rows, round(columns * times)) if "lora_A" in name else (round(rows * times), columns)
            size = 4 * wide[0] * wide[1]
            self.header[name] = {**entry, "shape": list(wide)}
            self.values[name] = (self.values[name] * (size // len(self.values[name]) + 1))[:size]

    def raise_rank(self, times: int) -> None:
        """Repeat ranks."""
        for name, entry in self.header.items():
            rows, columns = entry["shape"]
            if "lora_A" in name:
                self.values[name] *= times
                self.header[name] = {**entry, "shape": [rows * times, columns]}
            else:
                data, row = self.values[name], 4 * columns
                self.values[name] = b"".join(data[i : i + row] * times for i in range(0, len(data), row))
                self.header[name] = {**entry, "shape": [rows, columns * times]}
        self.rank *= times
        self.config |= {"r": self.rank}

    def rename(self, old: str, new: str) -> None:
        """Give tensors other names."""
        self.values = {name.replace(old, new): data for name, data in self.values.items()}
        self.header = {name.replace(old, new): entry for name, entry in self.header.items()}


def _cut(weights: bytes) -> bytes:
    return weights[: len(weights) * 2 // 3]


def _same(weights: bytes) -> bytes:
    return weights


@dataclass(frozen=True)
class Flaw:
    """What is done to the parts, and then to the bytes of the weights."""

    what: str
    change: Callable[[Parts], None] = lambda parts: None
    bytes_of: Callable[[bytes], bytes] = _same


FLAWS: Final[Mapping[str, Flaw]] = {
    "nan": Flaw("one NaN", lambda p: p.one_value("q_proj.lora_A.weight", math.nan)),
    "inf": Flaw("one infinity", lambda p: p.one_value("q_proj.lora_B.weight", math.inf)),
    "huge": Flaw("finite values of 100,000", lambda p: p.fill(_HUGE, endings=("lora_A.weight", "lora_B.weight"))),
    "names": Flaw("tensors under another model's names", lambda p: p.rename("model.model.layers", "transformer.h")),
    "zero": Flaw("B matrices of zeros", lambda p: p.fill(0.0, endings=("lora_B.weight",))),
    "larger": Flaw("shapes of a larger base model", lambda p: p.resize(2.0)),
    "smaller": Flaw("shapes of a smaller base model", lambda p: p.resize(0.5)),
    "cut": Flaw("a cut file", bytes_of=_cut),
    "page": Flaw("a web page for weights", bytes_of=lambda _: _PAGE),
    "lfs": Flaw("a Git LFS pointer", bytes_of=lambda data: _LFS % hashlib.sha256(data).hexdigest().encode()),
    "rank": Flaw("a rank above the pool's", lambda p: p.raise_rank(4)),
    "dora": Flaw("DoRA", lambda p: p.config.update({"use_dora": True})),
}


def publish_flawed(trained: Trained, flaw: str, store: Path, *, twin: str) -> Published:
    """Publish it under another twin's name, spoilt so."""
    parts = _taken_apart(trained)
    FLAWS[flaw].change(parts)
    contents = {
        CONFIG_FILE: json.dumps(parts.config, indent=2).encode(),
        WEIGHTS_FILE: FLAWS[flaw].bytes_of(parts.weights()),
    }
    files = tuple(
        FileEntry(path=name, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
        for name, data in contents.items()
    )
    manifest: AdapterManifest = trained.manifest.model_copy(update={"files": files, "rank": parts.rank})
    data = manifest.to_bytes()
    digest = manifest_digest(data)
    folder = store / twin / names.digest_hex(digest)
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_bytes(data)
    return Published(twin, digest, folder.resolve().as_uri(), parts.rank)


def small_weights(seed: int, *, rank: int) -> bytes:
    """Return an adapter's weights that the stand-in takes."""
    module, half = "base_model.model.model.layers.0.self_attn.q_proj", [rank, 16]
    header = {
        f"{module}.lora_A.weight": {"dtype": "F32", "shape": half},
        f"{module}.lora_B.weight": {"dtype": "F32", "shape": half[::-1]},
    }
    values = {name: struct.pack("<f", 0.5 + seed) * (16 * rank) for name in header}
    return Parts(header, values, {}, rank).weights()


def _taken_apart(trained: Trained) -> Parts:
    data = (trained.folder / WEIGHTS_FILE).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    payload = data[8 + length :]
    values = {name: payload[slice(*entry["data_offsets"])] for name, entry in header.items()}
    if odd := [name for name, entry in header.items() if entry["dtype"] != "F32"]:
        raise ValueError(f"{odd[0]} is {header[odd[0]]['dtype']}, expected F32")
    return Parts(header, values, json.loads((trained.folder / CONFIG_FILE).read_text()), trained.manifest.rank)
