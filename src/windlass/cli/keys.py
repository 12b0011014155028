"""API keys of this workspace's server.

  windlass keys add ann --access staff      a key, which finds what the label staff allows
  windlass keys list                        what each may do, and what it used
  windlass keys revoke ann

A key is shown once, when it is made; only its hash is stored. From the first key on, every request needs one. A running
server takes notice of new and revoked keys with the next request.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from windlass.cli.workspace import add_option, opened
from windlass.core.tables import table
from windlass.serve.keys import FILE, KeyLimits, Keys


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|revoke")
    add = actions.add_parser("add", help="make a key and show it")
    add.add_argument("name", metavar="NAME", help="who or what uses it")
    add.add_argument(
        "--scope", action="append", metavar="SCOPE", help="generate, embed, batch or admin; may be given several times"
        " (default: generate, embed and batch)",
    )  # fmt: skip
    add.add_argument(
        "--access", action="append", default=[], metavar="LABEL", help="whose documents it may find besides those for"
        " everybody (`windlass ingest --access`); may be given several times",
    )  # fmt: skip
    add.add_argument("--requests-per-minute", type=int, metavar="N")
    add.add_argument("--tokens-per-minute", type=int, metavar="N")
    add.add_argument("--tokens-per-day", type=int, metavar="N")
    add.add_argument("--dollars-per-day", type=float, metavar="USD")
    add.add_argument("--dollars-per-month", type=float, metavar="USD")
    add.add_argument("--days", type=float, metavar="N", help="how long it is good for (default: until revoked)")
    revoke = actions.add_parser("revoke", help="take a key back")
    revoke.add_argument("name", metavar="NAME", help="its name or id")
    for action in (add, revoke, actions.add_parser("list", help="keys, limits and what was used this month")):
        add_option(action)


def run(args: argparse.Namespace) -> int:
    with opened(args) as workspace:
        keys = Keys(workspace.root / FILE)
        try:
            if args.action == "add":
                limits = KeyLimits(
                    args.requests_per_minute, args.tokens_per_minute, args.tokens_per_day, args.dollars_per_month,
                    args.dollars_per_day,
                )  # fmt: skip
                scopes = args.scope or ["generate", "embed", "batch"]
                key, secret = keys.add(args.name, scopes, limits, days=args.days, access=args.access)
                print(f"Key '{key.name}' for {', '.join(sorted(key.scopes))}. It is shown this once:\n\n  {secret}")
            elif args.action == "revoke":
                print(f"Key '{keys.revoke(args.name).name}' opens nothing any more.")
            else:
                _list(keys)
        finally:
            keys.close()
    return 0


def _list(keys: Keys) -> None:
    rows, now = [], time.time()
    for key in keys.all():
        used = keys.used(key.id, "month")
        limits = ", ".join(f"{v:g} {n.replace('_', ' ')}" for n, v in asdict(key.limits).items() if v is not None)
        state = "in use" if key.usable(now) else "expired" if key.revoked is None else "revoked"
        scopes = ", ".join(sorted(key.scopes))
        access = ", ".join(sorted(key.access)) or "public"
        rows.append(
            [key.id, key.name, state, scopes, access, limits or "none", used.requests, used.tokens, used.dollars]
        )
    if not rows:
        print("No keys: every request from this machine is let in.")
        return
    print(table(["id", "name", "state", "scopes", "access", "limits", "requests", "tokens", "dollars"], rows))
    print("\nRequests, tokens and dollars: this month's.")
