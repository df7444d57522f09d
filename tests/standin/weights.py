"""Weights of the stand-in: an adapter's bytes are its seed, from which its log-probabilities and words follow."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from bettertherapy_api.manifest import AdapterManifest, BaseModelEntry, FileEntry, Fingerprint, Lineage, manifest_digest
from bettertherapy_api.names import digest_hex, served_name
from bettertherapy_api.routing import Adapter, TwinEntry

BASE = "base-model"
BASE_SEED = "the base model"
TOKENS = tuple(range(100, 160))
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
SLOWER_KEY = "standin_slower"
"""In an adapter's configuration: how many times as long each of its tokens takes."""
VOCABULARY = 50_000


def seed_of(weights: bytes) -> str:
    """Return the seed that the stand-in gives these weights."""
    return hashlib.sha256(weights).hexdigest()


def logprobs(seed: str, tokens: tuple[int, ...] | list[int], *, noise: float = 0.0) -> list[float]:
    """Return ln p of each token but the first, between -6 and 0; two seeds differ by 2 nats on average."""
    values = []
    for position in range(1, len(tokens)):
        text = f"{seed}/{tokens[position - 1]}/{tokens[position]}/{position}".encode()
        raw = struct.unpack(">I", hashlib.sha256(text).digest()[:4])[0] / 2**32
        values.append(-6.0 * raw + noise * (1 if position % 2 else -1))
    return values


def word(seed: str, position: int) -> str:
    """Return the word that these weights say at a position; its first 8 letters name the weights."""
    return f"{seed[:8]}.{position}"


def safetensors(payload: bytes, *, rank: int) -> bytes:
    """Return a LoRA of one module whose weights are the payload, repeated to fill whole rows.

    Read as F16, letters are finite numbers, so that it is an adapter for whoever checks it.
    """
    columns = max(1, -(-len(payload) // (4 * rank)))
    half = 2 * rank * columns
    data = (payload * (2 * half // len(payload) + 1))[: 2 * half] if payload else bytes(2 * half)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    header = json.dumps(
        {
            f"{module}.lora_A.weight": {"dtype": "F16", "shape": [rank, columns], "data_offsets": [0, half]},
            f"{module}.lora_B.weight": {"dtype": "F16", "shape": [columns, rank], "data_offsets": [half, 2 * half]},
        }
    )
    return struct.pack("<Q", len(header)) + header.encode() + data


@dataclass(frozen=True)
class FakeAdapter:
    """An adapter in a store, as the trainer would have published it."""

    twin: str
    digest: str
    uri: str
    rank: int
    seed: str
    folder: Path
    manifest: AdapterManifest

    @property
    def name(self) -> str:
        """The served name."""
        return served_name(self.twin, self.digest)

    def entry(self, *, rank: int | None = None, digest: str | None = None, uri: str | None = None) -> TwinEntry:
        """Return its twin's entry in a routing slice, with this adapter alone."""
        digest = digest or self.digest
        adapter = Adapter(
            served_name=served_name(self.twin, digest), digest=digest, uri=uri or self.uri, rank=rank or self.rank
        )
        return TwinEntry(name=self.twin, adapters=(adapter,))


def write_adapter(
    store: Path,
    twin: str,
    *,
    content: str = "",
    rank: int = 8,
    base: str = BASE,
    fingerprint_of: str | None = None,
    with_fingerprint: bool = True,
    config_rank: int | None = None,
    tokens: tuple[int, ...] = TOKENS,
    size: int = 1024,
    slower: float = 1.0,
    weights: bytes | None = None,
) -> FakeAdapter:
    """Write an adapter with a valid manifest to `<store>/<twin>/<hex>/`.

    `fingerprint_of` takes the fingerprint from another seed, as if the weights had been mixed up; `config_rank` lies
    about the rank in adapter_config.json, which is what the engine reads; `weights` are
    the bytes of the file, whatever they are.
    """
    weights = weights or safetensors((f"{twin}/{content}/".encode() * size)[:size], rank=config_rank or rank)
    about = {"peft_type": "LORA", "r": config_rank or rank, "lora_alpha": 16, "target_modules": ["q_proj"]}
    config = json.dumps(about | ({SLOWER_KEY: slower} if slower != 1.0 else {}))
    files = {WEIGHTS_FILE: weights, CONFIG_FILE: config.encode()}
    seed = seed_of(weights)
    manifest = AdapterManifest(
        base_model=BaseModelEntry(name=base),
        rank=rank,
        files=tuple(FileEntry(path=p, digest=manifest_digest(b), size=len(b)) for p, b in sorted(files.items())),
        fingerprint=Fingerprint(token_ids=tokens, logprobs=tuple(logprobs(fingerprint_of or seed, tokens)))
        if with_fingerprint
        else None,
        lineage=Lineage(run=content or None),
    )
    data = manifest.to_bytes()
    digest = manifest_digest(data)
    folder = store / twin / digest_hex(digest)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content_bytes in files.items():
        (folder / name).write_bytes(content_bytes)
    (folder / "manifest.json").write_bytes(data)
    return FakeAdapter(twin, digest, folder.as_uri(), rank, seed, folder, manifest)
