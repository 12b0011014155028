"""Lets a model of this workspace go on with a text, or answer it if the model has a chat template.

windlass generate model "def main():"        stream up to --max-tokens tokens
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened
from windlass.core.values import ChatRequest, Message


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name, name@version or digest of a model")
    parser.add_argument("text", help="what to go on from")
    parser.add_argument("--max-tokens", type=int, default=120, help="at most so many new tokens; default: 120")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest token; default: 0.7")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve.engine.local import LocalModel

    with opened(args) as ws:
        artifact = ws.artifacts.get(args.model)
        name, digest = artifact.record.name, artifact.digest
        model = LocalModel.load(  # to see what was learned: in the arithmetic that it was learned in
            artifact.path, name=name, digest=digest, recorder=ws.recorder, policy="fp32"
        )
        request = ChatRequest(
            [Message("user", args.text)], temperature=args.temperature, max_tokens=args.max_tokens, seed=args.seed
        )
        text = args.text  # goes out with what is said first: what is refused says nothing
        for delta in model.stream(request):
            print(text + delta.text, end="", flush=True)
            text = ""
        print(text)
    return 0
