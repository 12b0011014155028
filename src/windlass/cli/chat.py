"""Talks with a model in the terminal; the conversation is kept in the workspace, if there is one.

windlass chat                                the assistant, else the newest model
windlass chat model                          a model of this workspace, or a model's folder
windlass chat http://127.0.0.1:8080/v1       any OpenAI-compatible server
echo "What is a pawl?" | windlass chat       one question from a pipe, nothing but the answer out

/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from windlass.cli.workspace import add_option, opened_unless_placed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model, a living index, a folder, or the base URL of a server")
    parser.add_argument("--name", metavar="MODEL", help="of a server: the model to ask (default: the first it lists)")
    parser.add_argument("--api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with a server's key")
    parser.add_argument("--system", default="", help="what the model is told first")
    parser.add_argument("--temperature", type=float, help="0 to 2; default: the model's own")
    parser.add_argument("--continue", dest="again", action="store_true", help="go on with the newest conversation")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.apply.chat.conversation import FOLDER, Conversation, kept
    from windlass.apply.chat.terminal import Terminal
    from windlass.loop.chatting import chat_model

    with contextlib.ExitStack() as stack:
        workspace = stack.enter_context(opened_unless_placed(args, [args.model] if args.model else []))
        model = stack.enter_context(chat_model(workspace, args.model, name=args.name, key_env=args.api_key_env))
        folder = workspace.root / FOLDER if workspace else None
        before = kept(folder) if folder and args.again else []
        if before:
            conversation = Conversation.load(before[0])
        else:
            conversation = Conversation.begin(model.name, folder, system=args.system)
        conversation.set_temperature(conversation.record.temperature if args.temperature is None else args.temperature)
        if sys.stdin.isatty():
            import readline  # noqa: F401 (gives `input` its line editing)

            return Terminal(model, conversation, folder).run()
        return Terminal(model, conversation, folder).once(sys.stdin.read())
