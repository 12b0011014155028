"""Serves this workspace's models, the assistant and the studio on one port, with an OpenAI-compatible API.

`windlass serve MODEL` serves just that: a model of the workspace, a model's folder (one that writes, embeds or ranks),
or a task that has a release.

Any OpenAI client works by its base URL. Only this machine can connect, unless --host says otherwise; then an API key is
needed: one of `windlass keys add`, or one in the environment variable that --api-key-env names. SIGTERM and Ctrl-C
finish the requests in flight and stop; batches go on when the server is started again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli.workspace import add_option, opened
from windlass.core.config import secret
from windlass.core.errors import ConfigError, MissingExtra
from windlass.core.protocols import Embedder, Reranker
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from windlass.serve.keys import Keys


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="what to serve (default: all of the workspace)")
    parser.add_argument("--host", help="address to listen on (default: that of windlass.toml, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port (default: that of windlass.toml, else 8080); 0: any free one")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with a key that may do everything")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM); with --tls-key: HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--access-log", action="store_true", help="a line of JSON on stderr for each request")
    engine = parser.add_argument_group("engine", "how the models of this machine are run")
    engine.add_argument(
        "--policy", choices=("fp32", "auto", "bf16", "int8", "int4"),
        help="arithmetic of the matrices, tried against fp32 first; auto: the fastest that passes, and fp32 where bits "
        "are to be reproducible (default: auto)",
    )  # fmt: skip
    engine.add_argument("--max-batch", type=_count, metavar="N", help="answers written in one step (default: 16)")
    engine.add_argument("--kv-tokens", type=_count, metavar="N", help="tokens to keep in memory, for each model")
    engine.add_argument("--reproducible", action="store_const", const=True, help="the same bits in any batch; slower")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--running", type=_count, default=64, metavar="N", help="answers at once (default: 64)")
    limits.add_argument("--waiting", type=_count, default=256, metavar="N", help="answers in line (default: 256)")
    limits.add_argument("--body-mb", type=_count, default=4, metavar="N", help="largest request body (default: 4)")
    limits.add_argument("--file-mb", type=_count, default=200, metavar="N", help="largest uploaded file (default: 200)")
    limits.add_argument("--seconds", type=_count, default=600, metavar="N", help="longest answer (default: 600)")
    limits.add_argument(
        "--drain", type=_count, default=30, metavar="N", help="seconds for requests in flight at the end"
    )
    limits.add_argument(
        "--linger", type=float, default=0.5, metavar="N",
        help="seconds after SIGTERM in which requests are still accepted while /ready says no (default: 0.5)",
    )  # fmt: skip
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve import run as server
    from windlass.serve.keys import FILE, Keys

    tls = None
    if args.tls_cert is not None or args.tls_key is not None:
        if args.tls_cert is None or args.tls_key is None:
            raise ConfigError("HTTPS needs both a certificate and its key.", "Give --tls-cert and --tls-key.")
        tls = server.Tls(args.tls_cert, args.tls_key)
    with opened(args) as workspace:
        settings = workspace.config.serve
        host = settings.host if args.host is None else args.host
        port = settings.port if args.port is None else args.port
        key, keys = _key(args.api_key_env), Keys(workspace.root / FILE)
        with server.listen(host, port, api_key=key, keyed=keys.any()) as listener:
            print("Loading models …", flush=True)
            app, chat, embedders = _compose(workspace, args, host, key, keys)
            greeting = _greeting(server.url(listener, tls), chat, embedders, key is not None or keys.any())
            cut_off = server.run(
                app, listener, tls=tls, drain=args.drain, linger=args.linger,
                on_start=lambda: print(greeting, flush=True),
            )  # fmt: skip
        keys.close()
        if cut_off:
            print(f"Stopped; {cut_off} requests took longer than {args.drain} s and were cut off.")
        else:
            print("Stopped; every request that had arrived was answered.")
    return 0


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if (key := secret(variable)) is None:
        raise ConfigError(f"The environment variable {variable} is empty.", f"Set it: export {variable}=…")
    return key


def _compose(
    workspace: Workspace, args: argparse.Namespace, host: str, key: str | None, keys: Keys
) -> tuple[Any, Sequence[str], Sequence[str]]:
    """The application, the names of its chat models and those of its embedders."""
    from windlass.loop.assemble import load_models
    from windlass.serve.app import create_app
    from windlass.serve.gate import LOOPBACK
    from windlass.serve.limits import Limits
    from windlass.serve.run import is_loopback
    from windlass.studio.app import routes

    encoders, others = _encoders(args.models)
    asked = {name: getattr(args, name) for name in ("policy", "max_batch", "kv_tokens", "reproducible")}
    engine = {name: value for name, value in asked.items() if value is not None}
    models = {} if encoders and not others else load_models(workspace, others, **engine)
    for name, model in models.items():
        if arithmetic := getattr(model, "arithmetic", None):
            print(f"{name}: {arithmetic}", flush=True)
    embedders: dict[str, Embedder] = {name: one for name, one in encoders.items() if isinstance(one, Embedder)}
    rerankers = {name: one for name, one in encoders.items() if isinstance(one, Reranker)}
    try:
        from windlass.serve.encoders.embedder import MiniLM

        minilm = MiniLM.load()
        embedders[minilm.name] = minilm
    except MissingExtra as missing:
        print(f"Without embeddings: {missing.message} {missing.hint}")
    app = create_app(
        models,
        embedders,
        workspace.store,
        workspace.recorder,
        folder=workspace.root / "serve",
        limits=Limits(
            body_bytes=args.body_mb << 20,
            file_bytes=args.file_mb << 20,
            request_seconds=args.seconds,
            running=args.running,
            waiting=args.waiting,
        ),
        api_key=key,
        keys=keys,
        hosts=LOOPBACK | {host} if is_loopback(host) else None,
        log=sys.stderr if args.access_log else None,
        routes=routes(workspace, models),
        rerankers=rerankers,
    )
    return app, list(models), [*embedders, *rerankers]


def _encoders(names: Sequence[str]) -> tuple[dict[str, Embedder | Reranker], list[str]]:
    """Those that are folders of encoders, and the others."""
    found: dict[str, Embedder | Reranker] = {}
    others = []
    for name in names:
        made = None
        if Path(name).is_dir():
            from windlass.serve.encoders.opening import encoder_in

            made = encoder_in(Path(name))
        if made is None:
            others.append(name)
        else:
            found[made.name] = made
    return found, others


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
