"""The adapter manifest: a Merkle root over an adapter's files, written by the trainer, checked by the agent.

`digest = "sha256:" + sha256(manifest.json bytes)`, like an OCI image manifest: one digest covers every file, the base
model it belongs to, the fingerprint and the lineage. It holds no timestamps, so the same inputs give the same digest.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat, model_validator

from bettertherapy_api.document import Document as _Doc

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Nats = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
"""A log-probability, far beyond what any model says: sums of them stay numbers."""
MANIFEST_FILE: Final = "manifest.json"
MEDIA_TYPE: Final = "application/vnd.bettertherapy.adapter.v1+json"


class FileEntry(_Doc):
    """One file of the adapter, relative to the manifest's folder."""

    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)


class BaseModelEntry(_Doc):
    """The base model that the adapter was trained on."""

    name: str
    revision: str | None = None
    digest: str | None = None
    """Digest over the base model's files (`neurons.models`), when the trainer knew it."""


class Probe(_Doc):
    """A fixed prompt and a continuation on which child, parent and base model differ, with what each makes of it.

    `child[i]`, `parent[i]` and `base[i]` are ln p(token_ids[start + i] | token_ids[:start + i]) in nats, computed in
    float32 by the trainer: one value for each token of the continuation, from `start` to the end.
    """

    token_ids: tuple[TokenId, ...] = Field(alias="tokenIds", min_length=2, max_length=256)
    """Prompt and continuation."""
    start: int = Field(ge=1)
    """Where the continuation begins."""
    child: tuple[Nats, ...] = Field(min_length=1)
    """By this adapter."""
    parent: tuple[Nats, ...] | None = None
    """By the adapter that `lineage.parentDigest` names; absent when the training began from the base model."""
    base: tuple[Nats, ...]
    """By the base model without any adapter: also what a pool's own noise is measured against."""

    @model_validator(mode="after")
    def _one_value_a_token(self) -> Probe:
        wanted = len(self.token_ids) - self.start
        for values in (self.child, self.parent, self.base):
            if values is not None and len(values) != wanted:
                raise ValueError(f"{len(values)} log-probabilities for {wanted} tokens of the continuation")
        return self


class Fingerprint(_Doc):
    """Teacher-forced log-probabilities of a fixed text, which tell these weights from any others.

    `logprobs[i]` is ln p(token_ids[i+1] | token_ids[:i+1]) in nats; its length is len(token_ids) - 1. Token ids and not
    a text, so that the check depends on no tokenizer.
    """

    token_ids: tuple[TokenId, ...] = Field(alias="tokenIds", min_length=2, max_length=256)
    logprobs: tuple[Nats, ...]
    tolerance_nats: float = Field(default=0.3, alias="toleranceNats", gt=0)
    """Mean absolute difference above which the loaded weights are others: bf16 against float32 differ by 0.05,
    other adapters of the same base by 0.6 and more. For readers that know no probes."""
    probes: tuple[Probe, ...] | None = Field(default=None, min_length=1, max_length=16)
    """What decides between child, parent and base model. Absent in older manifests, which keep their digest so."""

    @model_validator(mode="after")
    def _same_length(self) -> Fingerprint:
        if len(self.logprobs) != len(self.token_ids) - 1:
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.token_ids)} tokens; expected one less")
        return self

    @model_validator(mode="after")
    def _parent_everywhere_or_nowhere(self) -> Fingerprint:
        if len({probe.parent is None for probe in self.probes or ()}) > 1:
            raise ValueError("some probes say what the parent makes of them and others don't")
        return self


class Lineage(_Doc):
    """Where an adapter comes from."""

    dataset_digest: str | None = Field(default=None, alias="datasetDigest")
    parent_digest: str | None = Field(default=None, alias="parentDigest")
    run: str | None = None
    seed: int | None = None


class AdapterManifest(_Doc):
    """manifest.json."""

    media_type: Literal["application/vnd.bettertherapy.adapter.v1+json"] = Field(default=MEDIA_TYPE, alias="mediaType")
    base_model: BaseModelEntry = Field(alias="baseModel")
    rank: int = Field(ge=1, le=512)
    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=64)
    fingerprint: Fingerprint | None = None
    lineage: Lineage = Field(default_factory=Lineage)

    def to_bytes(self) -> bytes:
        """Return the bytes to store as manifest.json; hash these."""
        return self.to_json().encode()


def manifest_digest(data: bytes) -> str:
    """Return the adapter's digest, given the bytes of its manifest.json."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
