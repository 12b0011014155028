"""How likely texts are: log-likelihoods of continuations, in which whatever texts share is read once.

    scorer = Scorer(decoder)
    scorer.loglikelihood([(context, " yes"), (context, " no")])     # multiple choice (all as tokens)
    scorer.rolling([document], start=bos)                           # perplexity of long documents
    scorer.prompts([prompt], top=5)                                 # each token of a prompt: `echo` with `logprobs`

All sequences of a call form a forest (`trie.py`), read in depth-first order, some hundred tokens a pass: a token sees
its own ancestors only (`build.transformer.branches`). Of the keys and values, only those of the next token's ancestors
stay from pass to pass, and those of the last path stay from call to call: a harness that sends questions one by one
behind the same few examples pays for the examples once. A last token is scored but never read, so choices of one token
cost nothing but a look at the same logits.

Windows and the flag "is it what greedy decoding would write" are those of lm-evaluation-harness (arXiv 2405.14782).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.transformer.branches import Branches
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError
from windlass.serve.engine.scoring.trie import Ints, Trie

Floats = NDArray[np.float32]

CHUNK = 512
"""Tokens of one pass, at most: enough to keep the matrix products busy, few enough that others wait little for it."""
_LOGITS = 2**24
"""So many numbers of logits at a time (64 MiB)."""


class Scored(NamedTuple):
    """What the model thought of n tokens in a row, each given all before it."""

    logprobs: Floats
    """(n,) natural logarithms."""
    top_tokens: Ints
    """(n, k) the likeliest tokens in the place of each, likeliest first."""
    top_logprobs: Floats
    """(n, k)"""


class Scorer:
    """Log-likelihoods under one decoder. Safe to share between threads; calls are answered one after another.

    `turn` runs a function of one pass where the model may be used (an engine's thread); left out: here and now.
    """

    def __init__(
        self, decoder: Decoder, *, chunk: int = CHUNK, turn: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._decoder = decoder
        self._chunk = chunk
        self._turn = turn or (lambda step: step())
        self._lock = threading.Lock()
        self._cache = decoder.new_cache(capacity=1)
        self._hidden_SC = torch.zeros(1, decoder.config.hidden)
        self._path = _Path.empty()

    def loglikelihood(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): the sum of the continuation's log-probabilities, and whether every token
        of it is the likeliest in its place.

        Raises `InputError` naming the pair that is empty, holds no token of the vocabulary, or does not fit the window
        (the last token of a continuation is not read and needs no place).
        """
        for index, (context, continuation) in enumerate(pairs):
            for what, tokens in (("context", context), ("continuation", continuation)):
                if not len(tokens):
                    raise InputError(
                        f"Pair {index}: the {what} is empty.", "Begin a text with the model's own start token."
                    )
        whole = [[*context, *continuation] for context, continuation in pairs]
        found = self._score(whole, [len(context) for context, _ in pairs], 1, ahead=False, what="Pair")
        return [
            (float(one.logprobs.sum(dtype=np.float64)), bool((one.top_tokens[:, 0] == continuation).all()))
            for one, (_, continuation) in zip(found, pairs, strict=True)
        ]

    def rolling(self, texts: Sequence[Sequence[int]], *, start: int) -> list[float]:
        """The log-likelihood of whole texts, behind the token `start`. A text longer than the model reads is scored
        window by window; each token once, the last window's with as much before it as fits."""
        windows = [list(rolling_windows(text, start, self._decoder.config.context)) for text in texts]
        scores = iter(self.loglikelihood([window for one in windows for window in one]))
        return [sum(next(scores)[0] for _ in one) for one in windows]

    def prompts(self, prompts: Sequence[Sequence[int]], *, top: int = 1, ahead: bool = False) -> list[Scored]:
        """What the model thought of every token of each prompt but the first, with `top` alternatives; `ahead`: and
        of the token that comes next, whose own logprob is that of the likeliest."""
        if not 1 <= top <= self._decoder.config.vocab_size:
            raise InputError(f"top is {top}, but must be at least 1 and at most the vocabulary's size.")
        return self._score(prompts, [1] * len(prompts), top, ahead=ahead, what="Prompt")

    # ---- one call ----------------------------------------------------------------------------------------------------

    def _score(
        self, sequences: Sequence[Sequence[int]], firsts: Sequence[int], top: int, *, ahead: bool, what: str
    ) -> list[Scored]:
        """Of each sequence, the tokens from `firsts` on."""
        config = self._decoder.config
        for index, sequence in enumerate(sequences):
            self._check(sequence, ahead, f"{what} {index}")
        found: dict[int, Scored] = {}
        # Where LongRoPE turns long texts differently, they share nothing with short ones.
        read = [len(sequence) - (not ahead) for sequence in sequences]
        for stretched in (False, True):
            group = [i for i in range(len(sequences)) if config.stretched(read[i]) == stretched]
            if not group:
                continue
            with self._lock, torch.inference_mode():
                call = _Call(
                    [sequences[i] for i in group], [firsts[i] for i in group], top, ahead, self._taken(stretched)
                )
                self._run(call, max(read[i] for i in group), stretched)
            found |= dict(zip(group, call.results(ahead), strict=True))
        return [found[i] for i in range(len(sequences))]

    def _check(self, sequence: Sequence[int], ahead: bool, name: str) -> None:
        config = self._decoder.config
        if not len(sequence):
            raise InputError(f"{name} is empty.", "Begin a text with the model's own start token.")
        if min(sequence) < 0 or max(sequence) >= config.vocab_size:
            wrong = next(token for token in sequence if not 0 <= token < config.vocab_size)
            raise InputError(f"{name} holds token {wrong}, but the vocabulary has {config.vocab_size}.")
        if (read := len(sequence) - (not ahead)) > config.context:
            raise InputError(
                f"{name}: {read} tokens must be read to score it, but the model reads at most {config.context}.",
                "Shorten it, or score a long text by windows (rolling).",
            )

    def _taken(self, stretched: bool) -> _Path:
        """The path kept from the last call; nothing is kept any more until this call has ended well."""
        path, self._path = self._path, _Path.empty()
        return path if path.stretched == stretched else _Path.empty()

    def _run(self, call: _Call, reach: int, stretched: bool) -> None:
        self._make_room(len(call.held), len(call.held) + reach + self._chunk)
        self._turn(lambda: self._look_again(call))
        for nodes in even_parts(call.unread, self._chunk):
            self._turn(lambda nodes=nodes: self._read(call, nodes, reach))  # type: ignore[misc]
        if len(slots := call.last_path()):
            self._keep(slots)
        self._path = call.kept(slots, stretched)

    def _make_room(self, held: int, capacity: int) -> None:
        if self._cache.capacity < capacity:
            old, old_hidden_SC = self._cache, self._hidden_SC
            self._cache = self._decoder.new_cache(capacity=capacity)
            self._cache.keys[..., :held, :] = old.keys[..., :held, :]
            self._cache.values[..., :held, :] = old.values[..., :held, :]
            self._hidden_SC = old_hidden_SC.new_zeros(capacity, old_hidden_SC.shape[1])
            self._hidden_SC[:held] = old_hidden_SC[:held]
        self._cache.length = held

    def _keep(self, slots: Ints) -> None:
        positions = torch.from_numpy(slots).to(self._hidden_SC.device)
        self._cache.keep(positions)
        self._hidden_SC[: len(slots)] = self._hidden_SC[positions]

    def _look_again(self, call: _Call) -> None:
        """Logits of tokens that were read in an earlier call, where this one asks for more than was kept."""
        slots = np.flatnonzero(call.unknown(call.held))
        self._evaluate(call, call.held[slots], self._hidden_SC[torch.from_numpy(slots)])

    def _read(self, call: _Call, nodes: Ints, reach: int) -> None:
        """One pass over `nodes`, next in depth-first order."""
        trie, device = call.trie, self._hidden_SC.device
        slots = np.flatnonzero(trie.end[call.held] > nodes[0])  # the others have no descendants left to read
        self._keep(slots)
        call.held = np.concatenate([call.held[slots], nodes])
        seen_TS = (call.held <= nodes[:, None]) & (nodes[:, None] < trie.end[call.held])
        branches = Branches(
            torch.from_numpy(trie.depth[call.held]).to(device), torch.from_numpy(seen_TS).to(device), reach
        )
        x_TC = self._decoder.hidden_of_branches(torch.from_numpy(trie.token[nodes]).to(device), branches, self._cache)
        self._hidden_SC[len(slots) : len(call.held)] = x_TC
        wanted = np.flatnonzero(call.unknown(nodes))
        self._evaluate(call, nodes[wanted], x_TC[torch.from_numpy(wanted)])

    def _evaluate(self, call: _Call, nodes: Ints, hidden_NC: Tensor) -> None:
        """Fills in what the model expects behind `nodes`."""
        rows = max(1, _LOGITS // self._decoder.config.vocab_size)
        for start in range(0, len(nodes), rows):
            logits_NV = self._decoder.logits(hidden_NC[start : start + rows]).float()
            call.note(nodes[start : start + rows], logits_NV, logits_NV.logsumexp(-1))


@dataclass(frozen=True, slots=True)
class _Path:
    """What is kept from one call to the next: a text that was read, its keys and values being in the cache."""

    tokens: Ints
    logprobs: Floats
    top_tokens: Ints
    top_logprobs: Floats
    expected: NDArray[np.bool_]
    """Whether the two above were computed."""
    stretched: bool = False

    @classmethod
    def empty(cls) -> _Path:
        none = np.empty(0, dtype=np.int64)
        nothing = np.empty(0, dtype=np.float32)
        return cls(none, nothing, none[:, None], nothing[:, None], none.astype(np.bool_))


class _Call:
    """A forest of sequences, and what is known of its nodes."""

    def __init__(
        self, sequences: Sequence[Sequence[int]], firsts: Sequence[int], top: int, ahead: bool, path: _Path
    ) -> None:
        trie = self.trie = Trie.of([*sequences, path.tokens.tolist()])
        *self._paths, old = trie.paths
        self._firsts, self._top = firsts, top
        used, self._scored = np.zeros((2, len(trie)), dtype=np.bool_)
        read, self._expected = np.zeros((2, len(trie)), dtype=np.bool_)
        for nodes, first in zip(self._paths, firsts, strict=True):
            used[nodes] = True
            self._scored[nodes[first:]] = True
            read[nodes if ahead else nodes[:-1]] = True
            self._expected[nodes[first - 1 :] if ahead else nodes[first - 1 : -1]] = True
        self.held = old[: int((used & read)[old].sum())]
        """The nodes whose keys and values lie in the cache, in its order."""
        read[self.held] = False
        self.unread = np.flatnonzero(read)
        self._logprob = np.full(len(trie), np.nan, dtype=np.float32)
        self._top_token = np.zeros((len(trie), top), dtype=np.int64)
        self._top_logprob = np.zeros((len(trie), top), dtype=np.float32)
        self._known = np.zeros(len(trie), dtype=np.bool_)
        n = len(self.held)
        self._logprob[self.held] = path.logprobs[:n]
        if path.top_tokens.shape[1] >= top:
            self._top_token[self.held] = path.top_tokens[:n, :top]
            self._top_logprob[self.held] = path.top_logprobs[:n, :top]
            self._known[self.held] = path.expected[:n]
        children = np.flatnonzero(self._scored & (trie.parent >= 0))
        self._children = children[np.argsort(trie.parent[children], kind="stable")]

    def unknown(self, nodes: Ints) -> NDArray[np.bool_]:
        """Of which nodes the logits are needed: a child is to be scored, or what is likely behind it to be told."""
        waiting = np.zeros(len(self.trie), dtype=np.bool_)
        waiting[self.trie.parent[self._children[np.isnan(self._logprob[self._children])]]] = True
        unknown: NDArray[np.bool_] = (waiting | (self._expected & ~self._known))[nodes]
        return unknown

    def note(self, nodes: Ints, logits_NV: Tensor, total_N: Tensor) -> None:
        """`total_N`: the logarithm of the sum of the exponentials of each row."""
        if self._top == 1:
            best_N = logits_NV.argmax(-1, keepdim=True)
            values = logits_NV.gather(-1, best_N)
        else:
            values, best_N = logits_NV.topk(self._top)
        self._top_token[nodes] = best_N.cpu().numpy()
        self._top_logprob[nodes] = (values - total_N[:, None]).cpu().numpy()
        self._known[nodes] = True
        parents = self.trie.parent[self._children]
        first, last = np.searchsorted(parents, nodes), np.searchsorted(parents, nodes, side="right")
        row = np.repeat(np.arange(len(nodes)), last - first)
        children = np.concatenate([self._children[a:b] for a, b in zip(first, last, strict=True)])
        rows, tokens = torch.from_numpy(row), torch.from_numpy(self.trie.token[children])
        self._logprob[children] = (logits_NV[rows, tokens] - total_N[rows]).cpu().numpy()

    def results(self, ahead: bool) -> list[Scored]:
        found = []
        for nodes, first in zip(self._paths, self._firsts, strict=True):
            before = nodes[first - 1 :] if ahead else nodes[first - 1 : -1]
            logprobs = self._logprob[nodes[first:]]
            if ahead:
                logprobs = np.append(logprobs, self._top_logprob[nodes[-1], 0])
            found.append(Scored(logprobs, self._top_token[before], self._top_logprob[before]))
        return found

    def last_path(self) -> Ints:
        """Where in the cache the last node that was read lies, and its ancestors; the root first."""
        if not len(self.unread):
            return np.arange(len(self.held))
        last = self.unread[-1]
        slots = np.flatnonzero((self.held <= last) & (last < self.trie.end[self.held]))
        ordered: Ints = slots[np.argsort(self.trie.depth[self.held[slots]])]
        return ordered

    def kept(self, slots: Ints, stretched: bool) -> _Path:
        nodes = self.held[slots]
        return _Path(
            self.trie.token[nodes],
            self._logprob[nodes],
            self._top_token[nodes],
            self._top_logprob[nodes],
            self._known[nodes],
            stretched,
        )


def even_parts(nodes: Ints, most: int) -> list[Ints]:
    """As few parts of at most so many nodes as there can be, all of about one length: a short last one would waste a
    pass over the weights."""
    return np.array_split(nodes, math.ceil(len(nodes) / most)) if len(nodes) else []


def rolling_windows(text: Sequence[int], start: int, length: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """(context, continuation) pairs whose continuations are `text` in pieces, for a model that reads `length` tokens:
    the first behind `start`, the others behind as much of the text as fits."""
    done = min(length, len(text))
    if done:
        yield [start], text[:done]
    while done < len(text):
        end = min(done + length, len(text))
        yield text[end - length - 1 : done], text[done:end]
        done = end
