"""A model of a few thousand weights with the words of these tests, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neurons.trainer.lora import Settings, adapt, load

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
WORDS = (
    "my knee hurts rest it and cool back badly keep moving a cough drink head aches see me on Tuesday Friday open when "
    "is your clinic Monday closed call emergency services now ."
)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    text = list(dict.fromkeys(f"<user> <assistant> <end> <unk> {WORDS}".split()))
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(text)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(text),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,  # so that what layers do to one another is large enough to be trained in a few steps
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def twin(base_model: Path) -> tuple[Any, Any]:
    """That model with an adapter that changes what it says, and its tokenizer."""
    torch = pytest.importorskip("torch", reason="training needs torch, which is only in the trainer's image")
    model, tokenizer = load(base_model)
    model = model.to(torch.float32)
    adapted = adapt(model, settings=Settings(rank=4), parent=None)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval()
    return adapted, tokenizer
