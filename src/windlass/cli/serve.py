"""Serves this workspace's models, the assistant and the studio on one port, with an OpenAI-compatible API.

`windlass serve MODEL` serves just that: a model of the workspace, a model's folder (one that writes, embeds, ranks or
classifies), or a task that has a release. Folders need no workspace; without one nothing is kept, and there is no
studio.

Any OpenAI client works by its base URL. Only this machine can connect, unless --host says otherwise; then an API key is
needed: one of `windlass keys add`, or one in the environment variable that --api-key-env names. SIGTERM and Ctrl-C
finish the requests in flight and stop; batches go on when the server is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli import listening
from windlass.cli.workspace import add_option, opened_unless_placed
from windlass.core.config import ServeConfig
from windlass.core.memory import limit_arenas
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from windlass.loop.lineup import Lineup
    from windlass.loop.releasing.watching import Watcher
    from windlass.serve.keys import Keys

_NOTHING_KEPT = (
    "There is no workspace here: nothing is recorded, and there are no studio, batches, or keys of `windlass keys`. "
    "`windlass init` makes one."
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="what to serve (default: all of the workspace)")
    listening.add_options(parser, before="that of windlass.toml, else ")
    engine = parser.add_argument_group("engine", "how the models of this machine are run")
    engine.add_argument(
        "--policy", choices=("fp32", "auto", "bf16", "int8", "int4"),
        help="arithmetic of the matrices, tried against fp32 first; auto: the fastest that passes, and fp32 where bits "
        "are to be reproducible (default: auto)",
    )  # fmt: skip
    engine.add_argument(
        "--max-batch", type=listening.positive, metavar="N", help="answers written in one step (default: 16)"
    )
    engine.add_argument(
        "--kv-tokens", type=listening.positive, metavar="N", help="tokens to keep in memory, for each model"
    )
    engine.add_argument("--reproducible", action="store_const", const=True, help="the same bits in any batch; slower")
    engine.add_argument(
        "--speculate", metavar="lookup|MODEL",
        help="guess ahead, by what was said before or by a smaller model with the same tokens; answers stay as they "
        "are, and it pauses where it does not gain (default: off)",
    )  # fmt: skip
    adapters = parser.add_argument_group("adapters", "each is a model of its own beside its base")
    adapters.add_argument(
        "--lora", type=_adapter, action="append", default=[], metavar="NAME=FOLDER",
        help="an adapter of PEFT for the model that is served, or an artifact of the workspace; several times",
    )  # fmt: skip
    adapters.add_argument(
        "--adapters-dir", type=Path, action="append", default=[], metavar="FOLDER",
        help="a folder from which clients may have adapters loaded (POST /v1/load_lora_adapter); several times",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--running", type=listening.positive, default=64, metavar="N", help="answers at once (default: 64)"
    )
    limits.add_argument(
        "--waiting", type=listening.positive, default=256, metavar="N", help="answers in line (default: 256)"
    )
    limits.add_argument(
        "--body-mb", type=listening.positive, default=4, metavar="N", help="largest request body (default: 4)"
    )
    limits.add_argument(
        "--file-mb", type=listening.positive, default=200, metavar="N", help="largest uploaded file (default: 200)"
    )
    limits.add_argument(
        "--seconds", type=listening.positive, default=600, metavar="N", help="longest answer (default: 600)"
    )
    parser.add_argument(
        "--look", type=listening.positive, default=30, metavar="N",
        help="seconds between two looks at the trials that run (`windlass canary`; default: 30)",
    )  # fmt: skip
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    limit_arenas()
    from windlass.serve import run as server
    from windlass.serve.keys import FILE, Keys

    tls = listening.tls_of(args)
    with contextlib.ExitStack() as stack:
        workspace = stack.enter_context(opened_unless_placed(args, args.models))
        keys = None if workspace is None else stack.enter_context(contextlib.closing(Keys(workspace.root / FILE)))
        settings = ServeConfig() if workspace is None else workspace.config.serve
        host = settings.host if args.host is None else args.host
        port = settings.port if args.port is None else args.port
        key = listening.api_key_of(args)
        keyed = keys is not None and keys.any()
        with server.listen(host, port, api_key=key, keyed=keyed) as listener:
            if workspace is None:
                print(_NOTHING_KEPT)
            print("Loading models …", flush=True)
            app, lineup = _compose(workspace, args, host, key, keys)
            if workspace is not None:
                stack.enter_context(contextlib.closing(_watcher(workspace, args.look)))
            greeting = _greeting(server.url(listener, tls), lineup, key is not None or keyed, workspace is not None)
            cut_off = server.run(
                app, listener, tls=tls, drain=args.drain, linger=args.linger,
                on_start=lambda: print(greeting, flush=True),
            )  # fmt: skip
    print(listening.farewell(cut_off))
    return 0


def _adapter(value: str) -> tuple[str, str]:
    name, given, folder = value.partition("=")
    if not (name and given and folder):
        raise argparse.ArgumentTypeError("must be NAME=FOLDER")
    return name, folder


def _compose(
    workspace: Workspace | None, args: argparse.Namespace, host: str, key: str | None, keys: Keys | None
) -> tuple[Any, Lineup]:
    """The application, and what it offers."""
    from windlass.loop.lineup import load_lineup
    from windlass.serve.adapter_folders import AdapterFolders
    from windlass.serve.api.catalogue import Catalogue
    from windlass.serve.app import create_app
    from windlass.serve.limits import Limits
    from windlass.studio.app import routes

    folders = AdapterFolders(args.adapters_dir, None if workspace is None else workspace.artifacts)
    asked = {name: getattr(args, name) for name in ("policy", "max_batch", "kv_tokens", "reproducible", "speculate")}
    engine = {name: value for name, value in asked.items() if value is not None}
    lineup = load_lineup(workspace, args.models, adapters=args.lora, **engine)
    for name, model in lineup.models.items():
        if arithmetic := getattr(model, "arithmetic", None):
            print(f"{name}: {arithmetic}", flush=True)
    for line in [*lineup.lacks, *lineup.caveats]:
        print(line)
    kept: dict[str, Any] = {}
    if workspace is not None:
        kept = {
            "store": workspace.store,
            "recorder": workspace.recorder,
            "folder": workspace.root / "serve",
            "routes": routes(workspace, Catalogue(lineup.models)),
        }
    app = create_app(
        lineup.models,
        lineup.embedders,
        rerankers=lineup.rerankers,
        classifiers=lineup.classifiers,
        adapter_folders=folders,
        limits=Limits(
            body_bytes=args.body_mb << 20,
            file_bytes=args.file_mb << 20,
            request_seconds=args.seconds,
            running=args.running,
            waiting=args.waiting,
        ),
        api_key=key,
        keys=keys,
        hosts=listening.hosts_of(host),
        log=sys.stderr if args.access_log else None,
        **kept,
    )
    return app, lineup


def _watcher(workspace: Workspace, every: float) -> Watcher:
    """Looks at the trials of the workspace."""
    from windlass.loop.releasing.watching import Watcher

    return Watcher(workspace, every=every, tell=lambda line: print(line, flush=True))


def _greeting(url: str, lineup: Lineup, keyed: bool, studio: bool) -> str:
    chat = lineup.models
    lines = [
        *([f"Studio      {url}"] if studio else []),
        f"OpenAI API  {url}/v1",
        f"Models      {', '.join(lineup.names) or 'none yet'}",
    ]
    if chat:
        model = "assistant" if "assistant" in chat else next(iter(chat))
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Your question"}}]}}'
        header = ' -H "Authorization: Bearer $KEY"' if keyed else ""
        lines += [
            "",
            f"  curl {url}/v1/chat/completions{header} -H 'Content-Type: application/json' -d '{body}'",
            f'  OpenAI(base_url="{url}/v1", api_key="{"…" if keyed else "unused"}")  # from the package openai',
        ]
    return "\n".join([*lines, "", "Ctrl-C stops."])
