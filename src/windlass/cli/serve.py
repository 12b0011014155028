"""Serves this workspace's models, the assistant and the studio on one port, with an OpenAI-compatible API.

Any OpenAI client works by its base URL. Only this machine can connect, unless --host says otherwise; then an API key
is needed, in the environment variable that --api-key-env names. Ctrl-C finishes the requests in flight and stops.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from windlass.cli.workspace import add_option, opened
from windlass.core.config import secret
from windlass.core.errors import ConfigError, MissingExtra
from windlass.core.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default: that of windlass.toml, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: that of windlass.toml, else 8080); 0: any free one")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key that clients send")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve import run as server

    with opened(args) as workspace:
        settings = workspace.config.serve
        host = settings.host if args.host is None else args.host
        port = settings.port if args.port is None else args.port
        key = _key(args.api_key_env)
        with server.listen(host, port, api_key=key) as listener:
            print("Loading models …", flush=True)
            app, chat, embedders = _compose(workspace, host, key)
            greeting = _greeting(server.url(listener), chat, embedders, key is not None)
            server.run(app, listener, on_start=lambda: print(greeting, flush=True))
        print("Stopped; every request that had arrived was answered.")
    return 0


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if (key := secret(variable)) is None:
        raise ConfigError(f"The environment variable {variable} is empty.", f"Set it: export {variable}=…")
    return key


def _compose(workspace: Workspace, host: str, key: str | None) -> tuple[Any, Sequence[str], Sequence[str]]:
    """The application, the names of its chat models and those of its embedders."""
    from windlass.loop.assemble import load_models
    from windlass.serve.app import create_app
    from windlass.serve.gate import LOOPBACK
    from windlass.serve.run import is_loopback
    from windlass.studio.app import routes

    models = load_models(workspace)
    embedders = {}
    try:
        from windlass.serve.embedder import MiniLM

        minilm = MiniLM.load()
        embedders[minilm.name] = minilm
    except MissingExtra as missing:
        print(f"Without embeddings: {missing.message} {missing.hint}")
    app = create_app(
        models,
        embedders,
        workspace.store,
        workspace.recorder,
        api_key=key,
        hosts=LOOPBACK | {host} if is_loopback(host) else None,
        routes=routes(workspace, models),
    )
    return app, list(models), list(embedders)


def _greeting(url: str, chat: Sequence[str], embedders: Sequence[str], keyed: bool) -> str:
    lines = [
        f"Studio      {url}",
        f"OpenAI API  {url}/v1",
        f"Models      {', '.join([*chat, *embedders]) or 'none yet'}",
    ]
    if chat:
        model = "assistant" if "assistant" in chat else chat[0]
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is a generator?"}}]}}'
        header = ' -H "Authorization: Bearer $KEY"' if keyed else ""
        lines += [
            "",
            f"  curl {url}/v1/chat/completions{header} -H 'Content-Type: application/json' -d '{body}'",
            f'  OpenAI(base_url="{url}/v1", api_key="{"…" if keyed else "unused"}")  # from the package openai',
        ]
    return "\n".join([*lines, "", "Ctrl-C stops."])
