"""A subnet's metagraph as a JSON file: what verifying offline, a local run and tests know the neurons from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from bettertherapy_api.faults import first_fault
from neurons.receipts.metagraph import Neuron

FORMAT = "bettertherapy-metagraph/1"
MAX_BYTES = 16 * 1024 * 1024
_CONFIG = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class MetagraphFileError(ValueError):
    """The file is no metagraph, or can't be read; the message is a sentence."""


class NeuronEntry(BaseModel):
    """One neuron. Stake is in the subnet's alpha."""

    model_config = _CONFIG

    uid: Annotated[int, Field(ge=0, le=65535)]
    hotkey: Annotated[str, Field(min_length=40, max_length=64)]
    coldkey: Annotated[str, Field(min_length=40, max_length=64)]
    axon: str | None = None
    """`ip:port` where it serves."""
    validator_permit: bool = False
    stake: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    block_at_registration: Annotated[int, Field(ge=0)] = 0
    incentive: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Its share of what miners earn; None if whoever wrote the file didn't know."""
    last_update: Annotated[int, Field(ge=0)] | None = None
    """Block at which it last set weights."""


class MetagraphFile(BaseModel):
    """The neurons as of one block."""

    model_config = _CONFIG

    format: Literal["bettertherapy-metagraph/1"] = "bettertherapy-metagraph/1"
    netuid: Annotated[int, Field(ge=0, le=65535)]
    block: Annotated[int, Field(ge=0)]
    time: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """When that block was made, in milliseconds since 1970 (UTC); None if whoever wrote it didn't know."""
    neurons: tuple[NeuronEntry, ...]


def write_metagraph(
    path: Path, *, netuid: int, block: int, neurons: Sequence[Neuron], time_ms: int | None = None
) -> None:
    """Write a metagraph, by renaming, so that whoever follows the file never reads half of it."""
    entries = tuple(NeuronEntry.model_validate(neuron, from_attributes=True) for neuron in neurons)
    made = MetagraphFile(netuid=netuid, block=block, time=time_ms, neurons=entries)
    part = path.with_name(f".{path.name}.part")
    part.write_text(made.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def read_metagraph(path: Path) -> MetagraphFile:
    """Read a file; raises MetagraphFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MetagraphFileError(f"The metagraph {path} can't be read: {error.strerror}.") from None
    if len(data) > MAX_BYTES:
        raise MetagraphFileError(f"The metagraph {path} has more than {MAX_BYTES} bytes: it is something else.")
    try:
        return MetagraphFile.model_validate_json(data)
    except ValidationError as error:
        fault = first_fault(error, whole="the file")
        raise MetagraphFileError(
            f"{path} is no metagraph ({FORMAT}): {fault}. `kubectl twin metagraph FILE` writes one."
        ) from None
