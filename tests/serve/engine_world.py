"""Small random models in model folders, for the tests of the engine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise

END = "<|endoftext|>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)

CALLING = (
    "{% if tools %}<tool_call>{{ tools | length }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.x }}{% endfor %}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}"
)
"""A template that teaches Hermes' calls and reasoning."""


def byte_tokenizer() -> Tokenizer:
    """Single bytes and a few merges, so that characters are split between tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat, the end " * 20, "äöü 日本 🎈"], trainer)
    return tokenizer


def make_folder(
    folder: Path,
    *,
    context: int = 128,
    template: str | None = None,
    eos: bool = False,
    noise: float = 0.3,
    **family: object,
) -> Path:
    """A random decoder that does not repeat itself; it never ends by itself unless `eos`. `noise`: what is added to its
    initial weights. `family`: more fields of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    shape = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "context": context}
    config = TransformerConfig(**{"vocab_size": tokenizer.get_vocab_size(), **shape, **family})
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=noise)
    bos = tokenizer.token_to_id(END)
    save_model(model, folder, bos=bos, eos=bos if eos else None)
    settings = {"bos_token": END, "eos_token": {"content": END}}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | ({"chat_template": template} if template else {}))
    )
    return folder


def make_lora(folder: Path) -> Path:
    """An adapter for what `make_folder` makes, strong enough to change every answer."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 9, "target_modules": ["q_proj", "down_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator, tensors = torch.Generator().manual_seed(0), {}
    for layer in range(2):
        for module, inputs in (("self_attn.q_proj", 32), ("mlp.down_proj", 64)):
            for which, shape in (("A", (3, inputs)), ("B", (32, 3))):
                key = f"base_model.model.model.layers.{layer}.{module}.lora_{which}.weight"
                tensors[key] = torch.randn(shape, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def make_calling_folder(folder: Path, template: str = CALLING, *, marks: tuple[str, ...] = ()) -> Path:
    """As `make_folder`, of a model that calls tools and reasons; `marks`: special tokens of its own."""
    make_folder(folder, context=512, template=template, eos=True, vocab_size=300)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    words = {"<tool_call>": False, "</tool_call>": False, "<think>": True, "</think>": True}
    words |= dict.fromkeys(marks, True)
    tokenizer.add_tokens([AddedToken(word, special=special, normalized=False) for word, special in words.items()])
    tokenizer.save(str(path))
    return folder
