"""Compares two OpenAI-compatible servers answer by answer: greedy text, log-probabilities, usage, streams, errors.

windlass probe http://127.0.0.1:8080/v1 http://gpu:8000/v1

"wrong" breaks the API, "differs" is another answer, "close" lies within --tolerance or parts where two tokens are as
likely. Exit status 1 when a line is wrong, differs, or holds for one server only.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="URL_A", help="a server's base URL, ending in /v1")
    parser.add_argument("b", metavar="URL_B", help="the other's")
    parser.add_argument("--model", default="", help="model to ask (default: the first that each lists)")
    parser.add_argument("--model-b", help="where B calls it otherwise")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key")
    parser.add_argument("--api-key-env-b", metavar="NAME", help="where B's key is another")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="NATS", help="of log-probabilities (default: 0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    from windlass.core.tables import table
    from windlass.serve.probe.checks import examine
    from windlass.serve.probe.server import Server

    a = Server(args.a, args.model, args.api_key_env)
    b = Server(args.b, args.model_b or args.model, args.api_key_env_b or args.api_key_env)
    findings = examine(a, b, args.tolerance)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2))
    else:
        print(f"A  {a.url}  {a.model}\nB  {b.url}  {b.model}\n")
        rows = [(f.check, f.a, f.b, f.verdict, f.detail) for f in findings]
        print(table(("check", "A", "B", "verdict", ""), rows))
    return 0 if all(finding.verdict in ("same", "close", "neither") for finding in findings) else 1
