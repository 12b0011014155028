"""A text that goes on, for a base that knows no conversations: what it begins with is read, how it goes on is learned.

The two are encoded apart, as the engine will encode the beginning when the model is used: no token spans both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from windlass.build.adapt.data.conversations import Encoded, Turned, turned
from windlass.build.tokenizer import Specials
from windlass.core.errors import InputError


class ContinuationEncoder:
    def __init__(self, tokenizer: Any, specials: Specials) -> None:
        self._tokenizer, self._begin, self._end = tokenizer, specials.bos, specials.separator

    def encode(self, prompt: str, completion: str, where: str) -> Encoded:
        """Raises `InputError` naming the row when there is nothing to begin with, or nothing to learn."""
        return self.spelled(prompt, completion, where)[0]

    def spelled(self, prompt: str, completion: str, where: str) -> tuple[Encoded, list[Turned]]:
        """The same, with what is learned by itself. Raises `InputError` as `encode`."""
        read = self._tokenizer.encode(prompt, add_special_tokens=True).ids
        if self._begin is not None and read[:1] != [self._begin]:
            read = [self._begin, *read]
        encoding = self._tokenizer.encode(completion, add_special_tokens=False)
        said, ends = encoding.ids, [end for _, end in encoding.offsets]
        if not read or not said or not completion.strip():
            blank = not (completion if read else prompt).strip()
            raise InputError(
                f"{where}: the {'completion' if read else 'prompt'} "
                + ("is empty" if blank else "holds nothing that the tokenizer knows")
                + ", so nothing can be learned from it.",
                "Leave the row out, or fill it in.",
            )
        if said[-1] != self._end:
            said, ends = [*said, self._end], [*ends, len(completion)]
        places = range(len(read), len(read) + len(said))
        learned = np.arange(places.stop) >= places.start
        return Encoded(np.array([*read, *said], np.int64), learned), [turned(completion, places, ends)]
