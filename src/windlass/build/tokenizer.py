"""Byte-level BPE tokenizers: trained by `tokenizers`, measured and proven lossless here, loadable by everything.

Text is split into pieces by a pattern, then byte-pair merges (Sennrich et al. 2016) are learned inside the pieces over
bytes (Radford et al. 2019), so that any text has tokens and comes back unchanged.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.build.corpus import corpus_report, training_text
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra, WindlassError
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.tables import table
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
"""The only special token: begins and ends every document."""

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
_BATCH = 64


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a tokenizer makes of a set of texts."""

    documents: int
    bytes: int
    words: int
    """Runs of characters other than white space."""
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al. 2021)."""
        return self.tokens / self.words

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "bytes_per_token": round(self.bytes_per_token, 4),
            "fertility": round(self.fertility, 4),
        }


def train_tokenizer(
    ws: Workspace,
    corpus: Artifact,
    vocab_size: int,
    *,
    name: str = "tokenizer",
    kinds: Collection[str] | None = None,
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
    with (
        ws.runs.start("tokenizer", name, config=config) as run,
        ws.artifacts.build("tokenizer", name, run=run.id) as draft,
    ):
        draft.add_parent("corpus", corpus)
        cpu = time.process_time()
        feed = _Feed(training_text(corpus, "train", kinds), max_bytes, progress)
        tokenizer = train(feed, vocab_size)
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
        write_json(draft.path / "tokenizer_config.json", _transformers_config())
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


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens, the 256 bytes and `END_OF_TEXT` (id 0) among them.

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
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(tokenizer: Artifact | Path) -> Tokenizer:
    """The tokenizer of a tokenizer artifact, or of a model's folder.

    Text that spells a special token is encoded as text: no document can smuggle an end of text into a prompt.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("Reading a tokenizer", "build") from error
    folder = tokenizer if isinstance(tokenizer, Path) else tokenizer.path
    file = folder / "tokenizer.json"
    if not file.is_file():
        what = f"{folder} holds" if isinstance(tokenizer, Path) else f"{tokenizer.ref} ({tokenizer.kind}) holds"
        raise InputError(f"{what} no tokenizer.json.", "Name a tokenizer or a model.")
    loaded = Tokenizer.from_file(str(file))
    loaded.encode_special_tokens = True
    return loaded


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenCount:
    """Counts what the tokenizer makes of the texts. Raises `InputError` when they hold no word."""
    documents = size = words = tokens = 0
    for batch in batches(texts):
        documents += len(batch)
        size += sum(len(text.encode()) for text in batch)
        words += sum(len(text.split()) for text in batch)
        tokens += sum(len(encoding) for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
    if not words:
        raise InputError("There is no text to measure the tokenizer on.", "Name a corpus with text.")
    return TokenCount(documents, size, words, tokens)


def check_lossless(tokenizer: Tokenizer, texts: Iterable[str]) -> int:
    """Encodes and decodes every text; returns how many. Raises `WindlassError` showing the first that changes."""
    count = 0
    for batch in batches(texts):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        decoded = tokenizer.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
        for text, back in zip(batch, decoded, strict=True):
            if text != back:
                at = next((i for i, (a, b) in enumerate(zip(text, back)) if a != b), min(len(text), len(back)))
                raise WindlassError(
                    f"The tokenizer is not lossless: {text[at : at + 20]!r} came back as {back[at : at + 20]!r}.",
                    "Report this text as a fault of windlass.",
                )
            count += 1
    return count


def random_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Texts over all of Unicode, with many marks, spaces and line ends among them."""
    generator = random.Random(seed)
    common = " \n\t\r'\"-_=#09aZéß漢🙂\u200d\u0301\ufeff"
    for _ in range(count):
        places = (generator.choice((0x100, 0x3000, 0xD800, 0x110000)) for _ in range(generator.randrange(60)))
        codes = (generator.randrange(limit) for limit in places)
        mixed = (chr(c) if not 0xD800 <= c < 0xE000 and c % 3 else generator.choice(common) for c in codes)
        yield "".join(mixed)


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


def evaluate_tokenizer(tokenizer: Tokenizer, corpus: Artifact) -> dict[str, dict[str, Any]]:
    """Measures on the held-out text, by kind and for `all` together; empty when the corpus holds nothing out.

    Each text is checked to come back unchanged.
    """
    counts: dict[str, TokenCount] = {}
    for kind, row in corpus_report(corpus)["kept"].items():
        if kind != "all" and row["heldout_documents"]:
            check_lossless(tokenizer, training_text(corpus, "heldout", [kind]))
            counts[kind] = measure(tokenizer, training_text(corpus, "heldout", [kind]))
    if counts:
        columns = ("documents", "bytes", "words", "tokens")
        counts["all"] = TokenCount(*(sum(getattr(c, column) for c in counts.values()) for column in columns))
    return {kind: count.as_json() for kind, count in counts.items()}


def tokenizer_summary(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of measures: name of the text -> what `TokenCount.as_json` gives."""
    columns = ("documents", "bytes", "tokens", "bytes_per_token", "fertility")
    return table(
        ("text", "documents", "bytes", "tokens", "bytes/token", "tokens/word"),
        ((name, *(row[column] for column in columns)) for name, row in rows.items()),
    )


def tokenizer_report(tokenizer: Artifact) -> dict[str, Any]:
    """report.json of a tokenizer artifact."""
    if tokenizer.kind != "tokenizer":
        raise InputError(f"{tokenizer.ref} is of kind '{tokenizer.kind}', not a tokenizer.", "Name a tokenizer.")
    return dict(json.loads((tokenizer.path / "report.json").read_text(encoding="utf-8")))


def _transformers_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }


def batches(texts: Iterable[str], size: int = _BATCH) -> Iterator[list[str]]:
    """The texts in lists of `size`, as `Tokenizer.encode_batch_fast` likes them; the last may be shorter."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
