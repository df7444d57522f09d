"""Weights of the stand-in: an adapter's bytes are its seed, from which its log-probabilities and words follow."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from bettertherapy_api.manifest import (
    AdapterManifest,
    BaseModelEntry,
    FileEntry,
    Fingerprint,
    Lineage,
    Probe,
    manifest_digest,
)
from bettertherapy_api.names import digest_hex, served_name
from bettertherapy_api.routing import Adapter, TwinEntry

BASE = "base-model"
BASE_SEED = "the base model"
TOKENS = tuple(range(100, 160))
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
SLOWER_KEY = "standin_slower"
"""In an adapter's configuration: how many times as long each of its tokens takes."""
FLAW_KEY = "standin_flaw"
"""In an adapter's configuration: what is wrong with its weights, one of the three below."""
NOT_FINITE = "not finite"
"""Its log-probabilities are no numbers, and others are unharmed (as on a GPU)."""
SPOILING = "spoiling"
"""They are no numbers, and one question to it makes all others of that engine process so (as on a CPU)."""
NO_EFFECT = "no effect"
"""It loads and changes nothing, as one whose tensors bear names that the model has not."""
VOCABULARY = 50_000


def seed_of(weights: bytes) -> str:
    """Return the seed that the stand-in gives these weights."""
    return hashlib.sha256(weights).hexdigest()


def logprobs(
    seed: str, tokens: tuple[int, ...] | list[int], *, noise: float = 0.0, quantized: float = 0.0
) -> list[float]:
    """Return ln p of each token but the first, between -6 and 0; two seeds differ by 2 nats on average.

    `noise` (nats) is added and taken away in turns. `quantized` moves each place by up to so many nats, mostly the same
    for all weights, since they share the quantized base model.
    """
    values = []
    for position in range(1, len(tokens)):
        place = f"{tokens[position - 1]}/{tokens[position]}/{position}"
        shift = 2 * (0.7 * _unit(f"quantized/{place}") + 0.3 * _unit(f"quantized/{seed}/{place}")) - 1
        values.append(-6.0 * _unit(f"{seed}/{place}") + noise * (1 if position % 2 else -1) + quantized * shift)
    return values


def _unit(text: str) -> float:
    """Return a number between 0 and 1 that follows from the text."""
    number: int = struct.unpack(">I", hashlib.sha256(text.encode()).digest()[:4])[0]
    return number / 2**32


def probe(tokens: tuple[int, ...], *, child: str, parent: str | None = None, start: int = 1) -> Probe:
    """Return what the trainer would have recorded of these weights (seeds) on a text."""

    def of(seed: str) -> tuple[float, ...]:
        return tuple(logprobs(seed, tokens)[start - 1 :])

    return Probe(
        token_ids=tokens,
        start=start,
        child=of(child),
        parent=of(parent) if parent is not None else None,
        base=of(seed_of(BASE_SEED.encode())),
    )


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
    flaw: str | None = None,
    parent: str | None = None,
    probes: int = 0,
    parent_digest: str | None = None,
) -> FakeAdapter:
    """Write an adapter with a valid manifest to `<store>/<twin>/<hex>/`.

    `flaw` is one of NOT_FINITE, SPOILING and NO_EFFECT. `probes` of 12 tokens each are recorded in its fingerprint,
    with `parent` (a seed) as the weights that it was trained from, and `parent_digest` as what its lineage says.

    `fingerprint_of` takes the fingerprint from another seed, as if the weights had been mixed up; `config_rank` lies
    about the rank in adapter_config.json, which is what the engine reads; `weights` are
    the bytes of the file, whatever they are.
    """
    weights = weights or safetensors((f"{twin}/{content}/".encode() * size)[:size], rank=config_rank or rank)
    about: dict[str, object] = {
        "peft_type": "LORA",
        "r": config_rank or rank,
        "lora_alpha": 16,
        "target_modules": ["q_proj"],
    }
    about |= {SLOWER_KEY: slower} if slower != 1.0 else {}
    about |= {FLAW_KEY: flaw} if flaw is not None else {}
    config = json.dumps(about)
    files = {WEIGHTS_FILE: weights, CONFIG_FILE: config.encode()}
    seed = seed_of(weights)
    manifest = AdapterManifest(
        base_model=BaseModelEntry(name=base),
        rank=rank,
        files=tuple(FileEntry(path=p, digest=manifest_digest(b), size=len(b)) for p, b in sorted(files.items())),
        fingerprint=Fingerprint(
            token_ids=tokens,
            logprobs=tuple(logprobs(fingerprint_of or seed, tokens)),
            probes=tuple(
                probe(tuple(range(1000 * i, 1000 * i + 17)), child=fingerprint_of or seed, parent=parent, start=5)
                for i in range(1, probes + 1)
            )
            or None,
        )
        if with_fingerprint
        else None,
        lineage=Lineage(run=content or None, parent_digest=parent_digest),
    )
    data = manifest.to_bytes()
    digest = manifest_digest(data)
    folder = store / twin / digest_hex(digest)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content_bytes in files.items():
        (folder / name).write_bytes(content_bytes)
    (folder / "manifest.json").write_bytes(data)
    return FakeAdapter(twin, digest, folder.as_uri(), rank, seed, folder, manifest)
