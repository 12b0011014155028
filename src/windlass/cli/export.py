"""Writes a model as one GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio, ...) run.

windlass export model                        model.gguf, 16-bit floats
windlass export model --type q8_0            half the size, nearly the same answers
windlass export ./folder -o small.gguf       a Hugging Face folder instead of a model of this workspace

Logits are those of this package, up to the rounding of the type, and texts become the same tokens. A model or tokenizer
that llama.cpp would compute otherwise is refused by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.cli.workspace import add_option, model_folder


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name, name@version or digest of a model, or a Hugging Face folder")
    parser.add_argument("--to", choices=("gguf",), default="gguf", help="format; default: gguf")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: NAME.gguf in this folder")
    parser.add_argument("--type", default="f16", help="of the matrices: f32, f16, bf16, q8_0 or q4_0; default: f16")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="shorten the model's window")
    parser.add_argument("--without-tokenizer", action="store_true", help="weights only")
    parser.add_argument(
        "--words-like", metavar="RULE",
        help="where llama.cpp lacks the tokenizer's rule for words: llama-bpe, qwen2, gpt-2 or smollm instead",
    )  # fmt: skip
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.transformer.gguf.exporting import export_gguf

    folder, name = model_folder(args, args.model)
    written = export_gguf(
        folder,
        args.output or Path(f"{name}.gguf"),
        type=args.type,
        name=name,
        context=args.context,
        tokenizer=not args.without_tokenizer,
        words_like=args.words_like,
    )
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(written.types.items()))
    size = f"{written.bytes / 1e6:.1f} MB"
    print(f"{written.path} · {size} · {written.architecture} · {types} · tokens: {written.tokenizer}")
    if args.words_like:
        print(f"Where '{args.words_like}' splits words otherwise than this tokenizer, texts become other tokens.")
    return 0
