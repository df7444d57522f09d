"""vLLM's own word on adapters: run by vLLM's Python, with nothing of ours, over folders below the one that is named.

Prints {"vllm": version, "verdicts": {folder: null, or the kind of error with which it refuses}}. It does what
vLLM's worker does when it loads an adapter, down to the merge of the scaling, for a
model with the modules that Llama's kind has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"}


def verdict(folder: Path) -> str | None:
    """Return the kind of error with which vLLM refuses the adapter, None when it takes it."""
    import torch
    from vllm.config.lora import LoRAConfig
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    try:
        helper = PEFTHelper.from_local_dir(str(folder), 2048)
        helper.validate_legal(LoRAConfig(max_lora_rank=64, max_loras=1))
        lora = LoRAModel.from_local_checkpoint(
            str(folder),
            MODULES,
            peft_helper=helper,
            lora_model_id=1,
            device="cpu",
            dtype=torch.bfloat16,
            model_vocab_size=100,
        )
        for layer in lora.loras.values():
            layer.optimize()
        if any(layer.lora_a is None or layer.lora_b is None for layer in lora.loras.values()):
            return "one half is missing"
        next(iter(lora.loras.values()))
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine answers with it
        return type(error).__name__
    return None


def main() -> None:
    """Judge every folder and print the table."""
    import vllm

    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    table = {"vllm": vllm.__version__.split("+")[0], "verdicts": {each.name: verdict(each) for each in folders}}
    sys.stdout.write(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
