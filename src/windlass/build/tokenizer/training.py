"""`train_tokenizer`: the training text of a corpus in, a tokenizer artifact out, with its report."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windlass.build.corpus import training_text
from windlass.build.tokenizer.bpe import BPE
from windlass.build.tokenizer.chat import CHATML, END_OF_TURN, TURN
from windlass.build.tokenizer.counting import DISTINCT, WordCounts, count_words
from windlass.build.tokenizer.evaluating import evaluate_tokenizer
from windlass.build.tokenizer.kind import Kind, KindName, Rules
from windlass.build.tokenizer.loading import load_tokenizer
from windlass.build.tokenizer.lossless import check_lossless, random_texts
from windlass.build.tokenizer.probes import RANDOM_TEXTS
from windlass.build.tokenizer.specials import ROLES, load_specials, sentinel
from windlass.build.tokenizer.unigram import UNIGRAM
from windlass.build.tokenizer.wordpiece import WORDPIECE
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra, WindlassError
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KINDS: Mapping[KindName, Kind] = {"bpe": BPE, "unigram": UNIGRAM, "wordpiece": WORDPIECE}
LEAST = 317
"""256 bytes, some merges; special tokens come on top."""
LARGEST = 1 << 20


def train_tokenizer(
    ws: Workspace,
    corpus: Artifact,
    vocab_size: int,
    *,
    kind: KindName = "bpe",
    special: Sequence[str] = (),
    sentinels: int = 0,
    chat_template: str | None = None,
    cased: bool = False,
    allow_smaller: bool = False,
    name: str = "tokenizer",
    kinds: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Trains on the corpus' training text (`kinds` as in `training_text`) and stores an artifact of kind `tokenizer`.

    Holds tokenizer.json, tokenizer_config.json (for `transformers.AutoTokenizer`) and report.json. The text is read
    once, in bounded memory (see `counting`). `special`, `sentinels`, `cased` and `allow_smaller` as in `train`;
    `chat_template` (Jinja, or `chat.CHATML`) is stored with it. A lossless kind must give held-out text and random
    Unicode back unchanged, or it is refused; of WordPiece the report says how much comes back.
    """
    if chat_template == CHATML:
        special = [*special, TURN, END_OF_TURN]
    asked: dict[str, Any] = {"kind": kind, "special": list(special), "sentinels": sentinels, "cased": cased}
    settings = {"corpus": corpus.digest, "vocab_size": vocab_size, "kinds": sorted(kinds) if kinds else None, **asked}
    with (
        ws.runs.start("tokenizer", name, config=settings) as run,
        ws.artifacts.build("tokenizer", name, run=run.id) as draft,
    ):
        draft.add_parent("corpus", corpus)
        cpu = time.process_time()
        feed = _Feed(training_text(corpus, "train", kinds), progress)
        trained = train(feed, vocab_size, allow_smaller=allow_smaller, **asked)
        cpu = time.process_time() - cpu
        trained.tokenizer.save(str(draft.path / "tokenizer.json"))
        write_json(draft.path / "tokenizer_config.json", _transformers_config(trained, chat_template))
        tokenizer = load_tokenizer(draft.path)
        measured = evaluate_tokenizer(tokenizer, load_specials(draft.path), corpus)
        if trained.kind.lossless:
            check_lossless(tokenizer, random_texts(RANDOM_TEXTS))
            _check_documents(measured["round_trip"]["first_changed"])
        asked_for = {"kind": kind, "vocab_size_asked": vocab_size, "trained_on_bytes": feed.bytes}
        report = asked_for | {"words": trained.words.as_json()} | measured
        write_json(draft.path / "report.json", report)
        heldout = report["heldout"].get("all", {}).get("bytes_per_token")
        draft.card.update(
            {
                "description": f"{trained.kind.title} trained on {corpus.ref}",
                "licence": corpus.card.get("licence"),
                "vocab_size": report["vocab_size"],
                "trained_on_bytes": feed.bytes,
                "bytes_per_token_train": report["train"]["bytes_per_token"],
                "bytes_per_token_heldout": heldout,
            }
        )
        run.log(0, vocab_size=report["vocab_size"], bytes=feed.bytes, train_cpu_seconds=cpu)
        run.log(0, bytes_per_token=report["train"]["bytes_per_token"])
        if heldout is not None:
            run.log(0, bytes_per_token_heldout=heldout)
    return draft.done


@dataclass(frozen=True, slots=True)
class Trained:
    tokenizer: Tokenizer
    kind: Kind
    words: WordCounts
    roles: Mapping[str, str]
    """Role -> special token."""
    extra: Sequence[str]
    """Special tokens without a role."""


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    kind: KindName = "bpe",
    special: Sequence[str] = (),
    sentinels: int = 0,
    cased: bool = False,
    allow_smaller: bool = False,
    distinct: int = DISTINCT,
) -> Trained:
    """Learns a tokenizer of `vocab_size` tokens, special tokens and single bytes included, from texts read once.

    `special`: further special tokens, as `TOKEN`, or as `ROLE=TOKEN` to give a role of `specials.ROLES` another token
    than the kind does. `sentinels`: how many `<extra_id_…>`. `cased`: whether WordPiece keeps case and accents; the
    other kinds always do. `distinct`: words held in memory (see `counting`). The result depends neither on threads nor
    on the order of documents, unless words were thinned out.

    Raises `InputError` when the size makes no sense, or when the text does not hold as many pieces and `allow_smaller`
    is not set.
    """
    if kind not in KINDS:
        raise InputError(f"There is no kind of tokenizer called '{kind}'.", f"There are: {', '.join(KINDS)}.")
    chosen = KINDS[kind]
    try:
        rules = chosen.rules(cased)
    except ImportError as error:
        raise MissingExtra("Training a tokenizer", "build") from error
    roles, extra = _special_tokens(chosen, special, sentinels, rules)
    tokens = [*dict.fromkeys(roles.values()), *extra]
    least = LEAST + len(tokens)
    if not least <= vocab_size <= LARGEST:
        raise InputError(
            f"The vocabulary size is {vocab_size}, but must be between {least} and {LARGEST:,}.",
            f"256 tokens are the single bytes, {len(tokens)} are special; 4096 suits a small model.",
        )
    words = count_words(texts, *rules, distinct=distinct)
    if not words.counts:
        raise InputError("There is no text to train the tokenizer on.", "Name a corpus with text.")
    tokenizer = chosen.learn(words, rules, vocab_size, roles, tokens)
    tokenizer.encode_special_tokens = True
    size = tokenizer.get_vocab_size()
    if size < vocab_size and not allow_smaller:
        raise InputError(
            f"A vocabulary of {vocab_size:,} tokens is larger than the text supports: it holds pieces for {size:,}.",
            f"Ask for at most {size}, give more text, or allow a smaller vocabulary (--allow-smaller).",
        )
    return Trained(tokenizer, chosen, words, roles, extra)


def _special_tokens(
    kind: Kind, special: Sequence[str], sentinels: int, rules: Rules
) -> tuple[dict[str, str], list[str]]:
    """Role -> token, and the tokens without a role. Raises `InputError` for one that a text could spell."""
    roles, extra = dict(kind.roles), [sentinel(number) for number in range(sentinels)]
    for item in special:
        role, equals, token = item.partition("=")
        if not (equals and role.isidentifier()):
            extra.append(item)
        elif role in ROLES:
            roles[role] = token
        else:
            raise InputError(f"'{role}' in --special {item} is no role of a token.", f"Roles are {', '.join(ROLES)}.")
    for token in (*roles.values(), *extra):
        if len(rules[1].pre_tokenize_str(token)) < 2:
            raise InputError(
                f"The special token {token!r} could be a word of a text.", f"Put marks around it, such as <|{token}|>."
            )
    named = set(roles.values())
    return roles, [token for token in dict.fromkeys(extra) if token not in named]


def _check_documents(changed: Mapping[str, str] | None) -> None:
    if changed is not None:
        raise WindlassError(
            f"The tokenizer is not lossless: {changed['text']!r} in {changed['document']} came back as "
            f"{changed['came_back']!r}.",
            "Report this text as a fault of windlass.",
        )


class _Feed:
    """Texts on their way to the trainer; counts their bytes."""

    def __init__(self, texts: Iterable[str], progress: Progress | None) -> None:
        self._texts, self._progress = texts, progress
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.bytes += len(text.encode())
            yield text
            if self._progress is not None:
                self._progress.update(self.bytes)


def tokenizer_report(tokenizer: Artifact) -> dict[str, Any]:
    """report.json of a tokenizer artifact."""
    if tokenizer.kind != "tokenizer":
        raise InputError(f"{tokenizer.ref} is of kind '{tokenizer.kind}', not a tokenizer.", "Name a tokenizer.")
    return dict(json.loads((tokenizer.path / "report.json").read_text(encoding="utf-8")))


def _transformers_config(trained: Trained, chat_template: str | None) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in trained.roles.items()},
        "extra_special_tokens": list(trained.extra),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    return config if chat_template is None else config | {"chat_template": chat_template}
