"""Puts one OpenAI-compatible address in front of other providers and engines, by a configuration file.

CONFIG is a TOML file with providers (base_url, api_key_env) and routes (a model's name for clients -> targets); see
docs/gateway.md. Clients change their base URL and nothing else; the providers' keys stay here. Every request is traced
into the workspace, with its attempts, tokens and cost. Only this machine can connect, unless --host says otherwise;
then an API key is needed: in the environment variable that --api-key-env names, or made with `windlass keys add`, with
limits on requests, tokens and dollars.

SIGHUP reads CONFIG and the certificate anew, without losing a request; what is wrong with them is said, and the old
ones stay. SIGTERM and Ctrl-C finish the requests in flight and stop.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from windlass.cli import listening
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import WindlassError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the file with providers and routes")
    listening.add_options(parser)
    parser.add_argument("--check", action="store_true", help="read and check CONFIG, then leave")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve import run as server
    from windlass.serve.gateway.app import create_gateway, reconfigure
    from windlass.serve.gateway.config import load_gateway
    from windlass.serve.gateway.gateway import Gateway
    from windlass.serve.keys import FILE, Keys

    config = load_gateway(args.config)
    if args.check:
        Gateway(config).close()
        print(f"{args.config}: {len(config.providers)} providers, {len(config.routes)} routes, nothing wrong.")
        return 0
    host = "127.0.0.1" if args.host is None else args.host
    port = 8080 if args.port is None else args.port
    tls, key = listening.tls_of(args), listening.api_key_of(args)

    def reload() -> None:
        try:
            again = load_gateway(args.config)
            reconfigure(app, again)
        except WindlassError as error:
            said = f"{args.config} is not used: {error.message} {error.hint}\nThe gateway goes on as before."
            print(said, file=sys.stderr, flush=True)
        else:
            print(f"{args.config} is in force: {', '.join(again.routes)}", flush=True)

    with (
        opened(args) as workspace,
        contextlib.closing(Keys(workspace.root / FILE)) as keys,
        server.listen(host, port, api_key=key, keyed=keys.any()) as listener,
    ):
        app = create_gateway(
            config, workspace.recorder, api_key=key, keys=keys, hosts=listening.hosts_of(host),
            log=sys.stderr if args.access_log else None,
        )  # fmt: skip
        greeting = (
            f"OpenAI API  {server.url(listener, tls)}/v1\nModels      {', '.join(config.routes)}\n\nCtrl-C stops."
        )
        cut_off = server.run(
            app, listener, tls=tls, drain=args.drain, linger=args.linger, on_hangup=reload,
            on_start=lambda: print(greeting, flush=True),
        )  # fmt: skip
    print(listening.farewell(cut_off))
    return 0
