"""Whether a folder is an adapter that the engine takes and serves as PEFT meant: before it is pushed and after each "
"fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from neurons.store.errors import AdapterInvalid, WeightsNotFinite, translated
from neurons.store.finite import LARGEST, first_bad_value
from neurons.store.lora_config import CONFIG_FILE, MAX_CONFIG_BYTES, LoraConfig, parse_config
from neurons.store.lora_tensors import BaseModules, check_tensors
from neurons.store.safetensors import NotSafetensors, read_header

WEIGHTS_FILE: Final = "adapter_model.safetensors"
_NAMED: Final = 20
"""Of the folders that may have been meant, so many are named."""


def check_adapter(folder: Path, *, base: BaseModules | None = None, where: str | None = None) -> LoraConfig:
    """Read configuration, header and every weight of an adapter, and return what its configuration says; blocks.

    With `base`, modules and their sizes are compared with the base model's too. `where` names the adapter in messages.
    Raises AdapterInvalid, WeightsNotFinite, and StoreError for what the file system says.
    """
    where = where or str(folder)
    with translated(doing="checking the adapter", uri=where):
        config = parse_config(_config_bytes(folder, where), where=where)
        weights = folder / WEIGHTS_FILE
        if not weights.is_file():
            raise AdapterInvalid(
                f"{where}: {WEIGHTS_FILE} is missing. Save the adapter with PEFT's save_pretrained (safetensors, not "
                ".bin)."
            )
        try:
            header = read_header(weights)
        except NotSafetensors as error:
            raise AdapterInvalid(f"{where}: {WEIGHTS_FILE} is {error}.") from error
        check_tensors(header.tensors, config, where=where, base=base)
        bad = first_bad_value(weights, header.tensors)
    if bad is not None:
        what = f"which is beyond ±{LARGEST:.0f}" if abs(bad.value) < float("inf") else "which is not finite"
        raise WeightsNotFinite(
            f"{where}: {bad.tensor[:200]} holds {bad.value:.6g} at place {bad.index}, {what}: one such weight can "
            "spoil the answers of every twin on an engine. Train the adapter again, with a lower learning rate."
        )
    return config


def _config_bytes(folder: Path, where: str) -> bytes:
    path = folder / CONFIG_FILE
    if not path.is_file():
        # PEFT writes an adapter that has a name into a folder of that name, and trainers write one a checkpoint.
        below = sorted(found.parent.name for found in folder.glob(f"*/{CONFIG_FILE}"))
        which = f", or one of those in it: {', '.join(below[:_NAMED])}" if below else ""
        raise AdapterInvalid(
            f"{where}: {CONFIG_FILE} is missing. Name a folder that PEFT's save_pretrained wrote{which}."
        )
    if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise AdapterInvalid(f"{where}: {CONFIG_FILE} has {size} bytes, at most {MAX_CONFIG_BYTES} are read.")
    return path.read_bytes()
