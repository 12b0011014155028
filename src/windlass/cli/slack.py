"""Answers in Slack: where the bot is mentioned, and in messages to it. A thread is a conversation.

windlass slack                       the assistant, else the newest model
windlass slack --link 'https://docs.example.com/{source}'       sources become links
windlass slack --manifest            what to paste at api.slack.com/apps to make the app

Two tokens come from the environment: SLACK_APP_TOKEN (xapp-…, scope connections:write) and SLACK_BOT_TOKEN (xoxb-…).
Slack is called from here (Socket Mode); nothing listens. Thumbs under an answer become scores on its trace.
"""

from __future__ import annotations

import argparse
import threading
from importlib import resources
from pathlib import Path

from windlass.cli.workspace import add_option, opened
from windlass.core.config import secret
from windlass.core.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model, a living index, a folder, or the base URL of a server")
    parser.add_argument("--link", metavar="URL", help="where sources are read: {source}, {document}, {start} and {end}")
    parser.add_argument("--access", type=Path, metavar="FILE", help="access labels of users and channels (TOML)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="answers at once (default: 4)")
    parser.add_argument("--app-token-env", metavar="NAME", default="SLACK_APP_TOKEN", help="variable with xapp-…")
    parser.add_argument("--bot-token-env", metavar="NAME", default="SLACK_BOT_TOKEN", help="variable with xoxb-…")
    parser.add_argument("--api", metavar="URL", default="https://slack.com/api/", help="Slack's API, as of GovSlack")
    parser.add_argument("--manifest", action="store_true", help="print the app's manifest and end")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.manifest:
        print(resources.files("windlass.loop.slack").joinpath("manifest.json").read_text(encoding="utf-8"), end="")
        return 0
    from windlass.loop.chatting import chat_model
    from windlass.loop.slack.access import Access
    from windlass.loop.slack.connecting import connected

    _check_link(args.link)
    labels = None if args.access is None else Access.read(args.access).labels
    bot_token, app_token = _token(args.bot_token_env, "xoxb-"), _token(args.app_token_env, "xapp-")
    with opened(args) as ws, chat_model(ws, args.model) as model:
        options = {"labels": labels, "link": args.link, "workers": max(1, args.workers)}
        with connected(ws, model, app_token, bot_token, args.api, **options) as left:
            print(f"{model.name} answers in Slack." + (f" {left} questions were left from before." if left else ""))
            print("Ctrl-C stops.", flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("Finishing the answers under way …", flush=True)
    return 0


def _token(variable: str, start: str) -> str:
    token = secret(variable)
    if token is None:
        raise ConfigError(f"The environment variable {variable} is empty.", f"Set it to the app's token ({start}…).")
    if not token.startswith(start):
        raise ConfigError(f"{variable} holds no token of that kind.", f"It begins with {start}.")
    return token


def _check_link(link: str | None) -> None:
    try:
        filled = None if link is None else link.format(source="", document="", start=0, end=0)
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"--link {link!r} cannot be filled in: {error}.", "It may hold {source}, {document}, {start} and {end}."
        ) from error
    if filled is not None and not filled.startswith(("https://", "http://")):
        raise ConfigError(f"--link {link!r} is no address.", "It begins with https://.")
