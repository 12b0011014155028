"""Puts one OpenAI-compatible address in front of other providers and engines, by a configuration file.

CONFIG is a TOML file with providers (base_url, api_key_env) and routes (a model's name for clients -> targets); see
docs/gateway.md. Clients change their base URL and nothing else; the providers' keys stay here. Every request is traced
into the workspace, with its attempts, tokens and cost. Only this machine can connect, unless --host says otherwise;
then an API key is needed: in the environment variable that --api-key-env names, or made with `windlass keys add`, with
limits on requests, tokens and dollars.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from windlass.cli.workspace import add_option, opened
from windlass.core.config import secret
from windlass.core.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the file with providers and routes")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port (default: 8080); 0: any free one")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key that clients send")
    parser.add_argument("--check", action="store_true", help="read and check CONFIG, then leave")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve.gateway.config import load_gateway

    config = load_gateway(args.config)
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        print("The gateway connects to its providers directly: the proxy of the environment is not used.")
    if args.check:
        print(f"{args.config}: {len(config.providers)} providers, {len(config.routes)} routes, nothing wrong.")
        return 0

    from windlass.serve import run as server
    from windlass.serve.gate import LOOPBACK
    from windlass.serve.gateway.app import create_gateway
    from windlass.serve.keys import FILE, Keys

    key = None if args.api_key_env is None else secret(args.api_key_env)
    if args.api_key_env is not None and key is None:
        raise ConfigError(
            f"The environment variable {args.api_key_env} is empty.", f"Set it: export {args.api_key_env}=…"
        )
    with (
        opened(args) as workspace,
        contextlib.closing(Keys(workspace.root / FILE)) as keys,
        server.listen(args.host, args.port, api_key=key, keyed=keys.any()) as listener,
    ):
        hosts = LOOPBACK | {args.host} if server.is_loopback(args.host) else None
        app = create_gateway(config, workspace.recorder, api_key=key, keys=keys, hosts=hosts)
        greeting = f"OpenAI API  {server.url(listener)}/v1\nModels      {', '.join(config.routes)}\n\nCtrl-C stops."
        cut_off = server.run(app, listener, on_start=lambda: print(greeting, flush=True))
    print(f"Stopped; {cut_off} requests were cut off." if cut_off else "Stopped; every request was answered.")
    return 0
