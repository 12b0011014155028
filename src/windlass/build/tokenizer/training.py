"""Byte-level BPE tokenizers: trained by `tokenizers`, measured and proven lossless here, loadable by everything.

Text is split into pieces by a pattern, then byte-pair merges (Sennrich et al. 2016) are learned inside the pieces over
bytes (Radford et al. 2019), so that any text has tokens and comes back unchanged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from windlass.build.corpus import training_text
from windlass.build.tokenizer.evaluating import evaluate_tokenizer
from windlass.build.tokenizer.lossless import check_lossless, random_texts
from windlass.build.tokenizer.measuring import measure
from windlass.build.tokenizer.specials import END_OF_TEXT, sentinel
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = {"bos": END_OF_TEXT, "eos": END_OF_TEXT, "pad": "<|pad|>", "mask": "<|mask|>"}
"""Role -> special token."""

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++(?:\n+[ \t]*)?"
    r"|\n+[ \t]*"
    r"|\s+(?!\S)"
    r"|\s+"
)
"""Words with the mark before them, numbers by two digits, runs of marks, and a line break *with its indentation*, also
behind marks: `):` and the start of the next line are one token where the pattern of GPT-4 takes three."""

SMALLEST = 320
LARGEST = 1 << 17
MAX_BYTES = 256_000_000
_RANDOM_TEXTS = 500


def train_tokenizer(
    ws: Workspace,
    corpus: Artifact,
    vocab_size: int,
    *,
    name: str = "tokenizer",
    kinds: Collection[str] | None = None,
    sentinels: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> Artifact:
    """Trains on the corpus' training text (`kinds` as in `training_text`) and stores an artifact of kind `tokenizer`.

    Holds tokenizer.json, tokenizer_config.json (for `transformers.PreTrainedTokenizerFast`) and report.json. Reads
    at most `max_bytes` of text, for memory's sake; the report says how much. Held-out text and random Unicode must come
    back unchanged, or the tokenizer is refused. A small corpus gives fewer tokens than asked for; the report says how
    many. Raises `InputError` on a vocabulary size that makes no sense.
    """
    if not SMALLEST <= vocab_size <= LARGEST:
        raise InputError(
            f"The vocabulary size is {vocab_size}, but must be between {SMALLEST} and {LARGEST:,}.",
            "256 tokens are the single bytes; 4096 suits a small model.",
        )
    config = {"corpus": corpus.digest, "vocab_size": vocab_size, "kinds": sorted(kinds) if kinds else None}
    if sentinels:
        config["sentinels"] = sentinels
    with (
        ws.runs.start("tokenizer", name, config=config) as run,
        ws.artifacts.build("tokenizer", name, run=run.id) as draft,
    ):
        draft.add_parent("corpus", corpus)
        cpu = time.process_time()
        feed = _Feed(training_text(corpus, "train", kinds), max_bytes, progress)
        tokenizer = train(feed, vocab_size, sentinels=sentinels)
        train_cpu = time.process_time() - cpu
        check_lossless(tokenizer, random_texts(_RANDOM_TEXTS))
        trained = measure(tokenizer, _Feed(training_text(corpus, "train", kinds), max_bytes))
        heldout = evaluate_tokenizer(tokenizer, corpus)
        unseen = heldout["all"]["bytes_per_token"] if heldout else None
        size = tokenizer.get_vocab_size()
        report = {
            "vocab_size_asked": vocab_size,
            "vocab_size": size,
            "trained_on_bytes": feed.bytes,
            "trained_on_all": not feed.cut,
            "train": trained.as_json(),
            "heldout": heldout,
            "lossless_random_texts": _RANDOM_TEXTS,
        }
        tokenizer.save(str(draft.path / "tokenizer.json"))
        write_json(draft.path / "tokenizer_config.json", _transformers_config(sentinels))
        write_json(draft.path / "report.json", report)
        draft.card.update(
            {
                "description": f"Byte-level BPE trained on {corpus.ref}",
                "licence": corpus.card.get("licence"),
                "vocab_size": size,
                "trained_on_bytes": feed.bytes,
                "bytes_per_token_train": trained.bytes_per_token,
                "bytes_per_token_heldout": unseen,
            }
        )
        run.log(0, vocab_size=size, bytes=feed.bytes, train_cpu_seconds=train_cpu)
        run.log(0, bytes_per_token=trained.bytes_per_token)
        if unseen is not None:
            run.log(0, bytes_per_token_heldout=unseen)
    return draft.done


def train(texts: Iterable[str], vocab_size: int, *, sentinels: int = 0) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens, the 256 bytes and the special tokens (`END_OF_TEXT` is 0) among them.

    Memory grows with the number of different words, not with the text. The result does not depend on threads.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingExtra("Training a tokenizer", "build") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*dict.fromkeys(SPECIAL.values()), *map(sentinel, range(sentinels))],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


class _Feed:
    """Texts up to a number of bytes; knows how many it gave and whether it had to stop."""

    def __init__(self, texts: Iterable[str], limit: int, progress: Progress | None = None) -> None:
        self._texts, self._limit, self._progress = texts, limit, progress
        self.bytes = 0
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            size = len(text.encode())
            if self.bytes + size > self._limit and self.bytes:
                self.cut = True
                return
            self.bytes += size
            yield text
            if self._progress is not None:
                self._progress.update(self.bytes)


def tokenizer_report(tokenizer: Artifact) -> dict[str, Any]:
    """report.json of a tokenizer artifact."""
    if tokenizer.kind != "tokenizer":
        raise InputError(f"{tokenizer.ref} is of kind '{tokenizer.kind}', not a tokenizer.", "Name a tokenizer.")
    return dict(json.loads((tokenizer.path / "report.json").read_text(encoding="utf-8")))


def _transformers_config(sentinels: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in SPECIAL.items()},
        "extra_special_tokens": list(map(sentinel, range(sentinels))),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
