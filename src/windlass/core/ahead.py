"""An iterator that works ahead of its reader: what it yields next is made in a thread meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], most: int = 2) -> Generator[T, None, None]:
    """The items in their order, at most so many of them waiting to be read.

    What making them raises, reading them raises in its place. A reader that leaves early (closes the generator) ends
    the work after the item that is being made; the thread has ended when `close` returns.
    """
    shelf: _Shelf[T] = _Shelf(most)
    thread = threading.Thread(target=shelf.fill, args=(items,), name="windlass-ahead", daemon=True)
    thread.start()
    try:
        yield from shelf.empty()
    finally:
        shelf.leave()
        thread.join()


class _Shelf(Generic[T]):
    """Between the thread that makes and the one that reads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._left = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        try:
            with contextlib.ExitStack() as stack:
                if isinstance(items, Generator):
                    stack.callback(items.close)  # here, in the thread that runs it
                for item in items:
                    if not self._put(item):
                        return
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._left or len(self._made) < self._most)
            if self._left:
                return False
            self._made.append(item)
            self._changed.notify_all()
            return True

    def empty(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    break
                item = self._made.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        with self._changed:
            self._left = True
            self._made.clear()
            self._changed.notify_all()
