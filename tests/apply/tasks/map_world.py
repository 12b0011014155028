"""Runs a map in a process of its own, to be killed: `python map_world.py URL ITEMS JOURNAL AT_ONCE`."""

from __future__ import annotations

import sys

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.tasks import task
from windlass.core.pricing import Price, price


@task(attempts=2)
def length(text: str) -> int:
    """Say how many letters the text has."""
    raise NotImplementedError


def at(url: str) -> RemoteChat:
    table = {"m-2026": Price(input=1.0, output=2.0, cache_read=0.5)}
    prices = lambda model, usage: price(model, usage, "here", extra=table)  # noqa: E731
    return RemoteChat(Endpoint(url), ChatCompletions("m"), price_of=prices)


def main(url: str, items: str, journal: str, at_once: str) -> None:
    print(length.using(model=at(url)).map(items, journal=journal, at_once=int(at_once), progress=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
