"""Where a server listens, who may connect and how it ends: what `windlass serve` and `windlass gateway` share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.core.config import secret
from windlass.core.errors import ConfigError

if TYPE_CHECKING:
    from windlass.serve.run import Tls


def add_options(parser: argparse.ArgumentParser, *, before: str = "") -> None:
    """`before`: which address and port come before the usual ones, when none are given."""
    parser.add_argument("--host", help=f"address to listen on (default: {before}127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"port (default: {before}8080); 0: any free one")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with a key that may do everything")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM); with --tls-key: HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--access-log", action="store_true", help="a line of JSON on stderr for each request")
    parser.add_argument(
        "--drain", type=positive, default=30, metavar="N", help="seconds for requests in flight at the end"
    )
    parser.add_argument(
        "--linger", type=_seconds, default=0.5, metavar="N",
        help="seconds after SIGTERM in which requests are still accepted while /ready says no (default: 0.5)",
    )  # fmt: skip


def positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return int(value)


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds")
    return number


def tls_of(args: argparse.Namespace) -> Tls | None:
    """Certificate and key; None: plain HTTP. Raises `ConfigError` and `InputError`."""
    from windlass.serve.run import Tls

    if args.tls_cert is None and args.tls_key is None:
        return None
    if args.tls_cert is None or args.tls_key is None:
        raise ConfigError("HTTPS needs both a certificate and its key.", "Give --tls-cert and --tls-key.")
    return Tls(args.tls_cert, args.tls_key)


def api_key_of(args: argparse.Namespace) -> str | None:
    """The key that may do everything; None: there is none. Raises `ConfigError` when its variable is empty."""
    if args.api_key_env is None:
        return None
    if (key := secret(args.api_key_env)) is None:
        raise ConfigError(
            f"The environment variable {args.api_key_env} is empty.", f"Set it: export {args.api_key_env}=…"
        )
    return key


def hosts_of(host: str) -> Collection[str] | None:
    """The names that a server listening on `host` answers to; None: any."""
    from windlass.serve.gate import LOOPBACK
    from windlass.serve.run import is_loopback

    return LOOPBACK | {host} if is_loopback(host) else None


def farewell(cut_off: int) -> str:
    """What is said at the end."""
    if cut_off:
        return f"Stopped; requests cut off before they were answered: {cut_off}."
    return "Stopped; every request that had arrived was answered."
