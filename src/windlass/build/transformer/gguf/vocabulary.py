"""Tokenizers in GGUF: the tokens with their kinds, and either merges under a named rule for words (byte-level BPE) or
scores (SentencePiece's BPE). Both directions keep every id; what would split some text otherwise is refused by name.

llama.cpp knows rules for words by name only. `SPLITS` holds those it shares with Hugging Face's tokenizers to the
letter; a tokenizer with another rule is refused, since its texts would become other tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.build.transformer.gguf.container import Value
from windlass.core.errors import InputError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES: dict[str, Any] = {**_GPT2, "use_regex": False}


def _split(pattern: str) -> list[dict[str, Any]]:
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, _BYTES]


SPLITS: dict[str, list[dict[str, Any]]] = {
    "llama-bpe": _split(_CONTRACTIONS + _WORD + r"|\p{N}{1,3}" + _TAIL),
    "qwen2": _split(_CONTRACTIONS + _WORD + r"|\p{N}" + _TAIL),
    "gpt-2": [_GPT2],
    "smollm": [{"type": "Digits", "individual_digits": True}, _GPT2],
}
"""Name -> the steps that Hugging Face's tokenizers take."""
_ALIASES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe", "chatglm-bpe"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), "qwen2"),
    **dict.fromkeys(("phi-2", "gigachat", "mpt", "olmo", "jais"), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "codeshell"), "smollm"),
}
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPACE = "▁"
_PADDING = re.compile(r"\[PAD\d+\]")
_HINT = "Weights alone can be exported with --without-tokenizer; the reader then gives and takes token numbers."


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids with a role; None where there is none."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    """Every token that ends an answer; the first is the one that ends a text."""
    pad: int | None = None


# ---- ours -> theirs --------------------------------------------------------------------------------------------------


def written(
    content: Mapping[str, Any], size: int, specials: Specials, template: str | None, words_like: str | None = None
) -> dict[str, Value]:
    """The key-values of a `tokenizer.json`, its vocabulary filled up to the `size` of the model's embedding.

    `words_like`: a rule of `SPLITS` to name where the tokenizer's own has no name; some texts then become other tokens.
    Raises `InputError` for a tokenizer whose tokens llama.cpp would not reproduce otherwise.
    """
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise _refused(f"it is of the kind {model['type']}, and only BPE can be written")
    normal = {number: token for token, number in model["vocab"].items()}
    added = {entry["id"]: entry for entry in content.get("added_tokens", ())}
    ids = normal.keys() | added.keys()
    if ids and (min(ids) < 0 or max(ids) >= size):
        raise _refused(f"it has a token {max(ids)}, but the model's embedding only {size} rows")
    tokens, kinds = [], []
    for number in range(size):
        if number in added:
            tokens.append(added[number]["content"])
            kinds.append(_CONTROL if added[number].get("special") else _USER)
        else:
            tokens.append(normal.get(number, f"[PAD{number}]"))
            kinds.append(_NORMAL if number in normal else _UNUSED)
    byte_level = _is_byte_level(content)
    values = _byte_level(content, words_like) if byte_level else _sentencepiece(content, tokens, kinds)
    before, after = _around(content)
    if before not in ((), (specials.bos,)) or len(after) > 1:
        raise _refused(f"it puts the tokens {[*before, *after]} around a text")
    roles = {"bos": specials.bos, "eos": after[0] if after else next(iter(specials.eos), None), "padding": specials.pad}
    if len(specials.eos) > 1:
        roles["eot"] = next(number for number in specials.eos if number != roles["eos"])
    values |= {f"tokenizer.ggml.{role}_token_id": number for role, number in roles.items() if number is not None}
    values |= {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_bos_token": bool(before),
        "tokenizer.ggml.add_eos_token": bool(after),
    }
    return values | ({"tokenizer.chat_template": template} if template is not None else {})


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    return any(step["type"] == "ByteLevel" for step in _steps(content.get("pre_tokenizer"), "pretokenizers"))


def _steps(value: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    return list(value[inner]) if value["type"] == "Sequence" else [value]


def _byte_level(content: Mapping[str, Any], words_like: str | None) -> dict[str, Value]:
    if words_like is not None and words_like not in SPLITS:
        raise InputError(f"'{words_like}' is no rule for words known here.", f"Known are: {', '.join(SPLITS)}.")
    steps = list(map(_plain, _steps(content["pre_tokenizer"], "pretokenizers")))
    names = [name for name, known in SPLITS.items() if list(map(_plain, known)) == steps]
    if not names and words_like is None:
        shown = next((step["pattern"] for step in steps if "pattern" in step), steps)
        raise InputError(
            f"The tokenizer cannot be written as GGUF: llama.cpp knows no rule that splits words as {shown} does.",
            f"--words-like names one that is near ({', '.join(SPLITS)}); some texts then become other tokens. {_HINT}",
        )
    for step in _steps(content.get("normalizer"), "normalizers"):
        if step["type"] != "NFC":  # which nearly all text is already
            raise _refused(f"it changes texts by {step['type']}")
    model = content["model"]
    whole_words = bool(model.get("ignore_merges"))
    if names and whole_words != (names[0] == "llama-bpe"):
        raise _refused(f"its ignore_merges is {str(whole_words).lower()}, which the rule '{names[0]}' is not")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": names[0] if names else str(words_like),
        "tokenizer.ggml.merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]],
    }


def _plain(step: Mapping[str, Any]) -> dict[str, Any]:
    """One spelling for what splits alike: these differ in offsets, or in how they write 'any case'."""
    found = {key: value for key, value in step.items() if key != "trim_offsets"}
    if found["type"] == "Split":
        pattern = str(found["pattern"].get("Regex"))
        for letters in ("[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]",):
            pattern = pattern.replace(f"(?:'{letters})", _CONTRACTIONS)
        found = {"type": "Split", "pattern": pattern, "behavior": found["behavior"], "invert": found.get("invert")}
    return found


def _sentencepiece(content: Mapping[str, Any], tokens: Sequence[str], kinds: list[int]) -> dict[str, Value]:
    """Scores in place of merges: the later a token was merged, the lower. That is the same algorithm only if the
    merges of each token stand together and none is left out, as in every tokenizer that came from SentencePiece."""
    model = content["model"]
    if not model.get("byte_fallback"):
        raise _refused("it works neither on bytes nor falls back to them")
    prefix = _prefix_space(content)
    vocabulary = model["vocab"]
    rank: dict[str, int] = {}
    previous, pairs = "", set()
    for merge in model["merges"]:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        pairs.add((left, right))
        if left + right != previous and left + right in rank:
            raise _refused(f"the merges of {left + right!r} do not stand together")
        previous = left + right
        rank.setdefault(previous, len(rank))
    scores = []
    for number, token in enumerate(tokens):
        if kinds[number] == _NORMAL and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            kinds[number] = _BYTE
        if token == model.get("unk_token"):
            kinds[number] = _UNKNOWN
        scores.append(-float(rank[token]) if token in rank else -1e6)
        for cut in range(1, len(token)) if kinds[number] == _NORMAL else ():
            pair = token[:cut], token[cut:]
            if pair not in pairs and pair[0] in vocabulary and pair[1] in vocabulary:
                raise _refused(f"it never merges {pair[0]!r} and {pair[1]!r} into {token!r}, which SentencePiece would")
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    if (unknown := model.get("unk_token")) in vocabulary:
        values["tokenizer.ggml.unknown_token_id"] = vocabulary[unknown]
    return values


def _prefix_space(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text. Spaces become `▁` in the normaliser, or in the pre-tokenizer Metaspace."""
    normal, words = _steps(content.get("normalizer"), "normalizers"), content.get("pre_tokenizer")
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if [dict(step) for step in normal] == [{"type": "Prepend", "prepend": _SPACE}, replaced] and words is None:
        return True
    gemma = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if [dict(step) for step in normal] == [replaced] and words in (None, gemma):
        return False
    if not normal and words and words["type"] == "Metaspace" and not words.get("split", True):
        scheme = words.get("prepend_scheme", "always")
        if words.get("replacement") == _SPACE and scheme in ("first", "never"):
            return bool(scheme == "first")
    raise _refused("its way of writing spaces is not SentencePiece's")


def _around(content: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that are put before and behind a single text."""
    before: list[int] = []
    after: list[int] = []
    for step in _steps(content.get("post_processor"), "processors"):
        if step["type"] == "ByteLevel":
            continue
        if step["type"] != "TemplateProcessing":
            raise _refused(f"it ends with {step['type']}")
        place = before
        for part in step["single"]:
            if "Sequence" in part:
                place = after
            else:
                place.extend(step["special_tokens"][part["SpecialToken"]["id"]]["ids"])
    return tuple(before), tuple(after)


def _refused(why: str) -> InputError:
    return InputError(f"The tokenizer cannot be written as GGUF: {why}.", _HINT)


# ---- theirs -> ours --------------------------------------------------------------------------------------------------


def read(values: Mapping[str, Any], size: int, where: str) -> tuple[dict[str, Any], Specials] | None:
    """A `tokenizer.json` and the special tokens; None where the file holds no tokenizer.

    Raises `InputError` for an unknown kind, and where tokens, kinds and scores do not fit each other or the `size` of
    the model's embedding.
    """
    kind = values.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama"):
        raise InputError(
            f"{where}: tokenizer.ggml.model is {str(kind)[:60]!r}, which cannot be read.", "Known: gpt2, llama."
        )
    tokens = _texts(values, "tokens", where)
    if len(tokens) != size:
        raise InputError(f"{where}: there are {len(tokens)} tokens, but the embedding has {size} rows.")
    if len(set(tokens)) != len(tokens):
        raise InputError(f"{where}: a token stands in the vocabulary twice.")
    kinds = values.get("tokenizer.ggml.token_type", [_NORMAL] * size)
    if not isinstance(kinds, list) or len(kinds) != size:
        raise InputError(f"{where}: tokenizer.ggml.token_type does not hold one number for each token.")
    while tokens and kinds[len(tokens) - 1] == _UNUSED and _PADDING.fullmatch(tokens[-1]):
        tokens.pop()  # rows that no text reaches
    specials = _specials(values, len(tokens), where)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, token, kinds[number]) for number, token in enumerate(tokens)
                         if kinds[number] in (_CONTROL, _USER)],
        **(_bpe(values, tokens, where) if kind == "gpt2" else _spm(values, tokens, kinds, where)),
        "post_processor": _template(values, tokens, specials, kind),
    }  # fmt: skip
    return content, specials


def _texts(values: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = values.get(f"tokenizer.ggml.{key}")
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InputError(f"{where}: tokenizer.ggml.{key} is missing, or no list of texts.")
    return list(found)


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **flags, "special": kind == _CONTROL}


def _bpe(values: Mapping[str, Any], tokens: Sequence[str], where: str) -> dict[str, Any]:
    name = values.get("tokenizer.ggml.pre", "default")
    name = _ALIASES.get(name, name)
    if name not in SPLITS:
        raise InputError(
            f"{where}: tokenizer.ggml.pre is {str(name)[:60]!r}, a rule for words that is not known here.",
            f"Known are: {', '.join([*SPLITS, *_ALIASES])}. Import the model from its Hugging Face folder.",
        )
    pieces = set(tokens)
    merges = []
    for merge in _texts(values, "merges", where):
        left, space, right = merge.partition(" ") if not merge.startswith(" ") else ("", "", "")
        if not space or not {left, right, left + right} <= pieces:
            raise InputError(f"{where}: the merge {merge[:60]!r} is not one of two tokens into a third.")
        merges.append([left, right])
    steps = SPLITS[name]
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": name == "llama-bpe",
        "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    return {
        "normalizer": {"type": "NFC"} if name == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0],
        "decoder": _GPT2,
        "model": model,
    }


def _spm(values: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int], where: str) -> dict[str, Any]:
    scores = values.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) < len(tokens):
        raise InputError(f"{where}: tokenizer.ggml.scores does not hold one number for each token.")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    mergeable = [n for n in range(len(tokens)) if kinds[n] in (_NORMAL, _UNUSED) and len(tokens[n]) > 1]
    merges = []
    for number in sorted(mergeable, key=lambda n: (-scores[n], n)):
        token = tokens[number]
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [(vocabulary[a], vocabulary[b], a, b) for a, b in halves if a in vocabulary and b in vocabulary]
        merges += [[a, b] for _, _, a, b in sorted(known)]
    unknown = values.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise InputError(f"{where}: tokenizer.ggml.unknown_token_id is {unknown!r}, which is no token.")
    prefix = bool(values.get("tokenizer.ggml.add_space_prefix", True))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = {"type": "Prepend", "prepend": _SPACE}
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    if prefix:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    model = {
        "type": "BPE", "dropout": None, "unk_token": tokens[unknown], "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": vocabulary, "merges": merges,
    }  # fmt: skip
    return {
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replaced]} if prefix else replaced,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": model,
    }


def _specials(values: Mapping[str, Any], size: int, where: str) -> Specials:
    found: dict[str, int] = {}
    for role in ("bos", "eos", "eot", "padding"):
        number = values.get(f"tokenizer.ggml.{role}_token_id")
        if number is not None:
            if not isinstance(number, int) or not 0 <= number < size:
                raise InputError(f"{where}: tokenizer.ggml.{role}_token_id is {number!r}, which is no token.")
            found[role] = number
    ends = tuple(dict.fromkeys(found[role] for role in ("eos", "eot") if role in found))
    return Specials(found.get("bos"), ends, found.get("padding"))


def _template(values: Mapping[str, Any], tokens: Sequence[str], specials: Specials, kind: str) -> dict[str, Any] | None:
    """What stands around a text. llama.cpp's defaults: SentencePiece's texts and Llama 3's begin with bos."""
    rule = str(values.get("tokenizer.ggml.pre"))
    customary = kind == "llama" or _ALIASES.get(rule, rule) == "llama-bpe"
    before = specials.bos if values.get("tokenizer.ggml.add_bos_token", customary) else None
    after = specials.eos[0] if values.get("tokenizer.ggml.add_eos_token", False) and specials.eos else None
    if before is None and after is None:
        return None
    text = [{"Sequence": {"id": "A", "type_id": 0}}]

    def around(middle: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = [] if before is None else [{"SpecialToken": {"id": tokens[before], "type_id": 0}}]
        last = [] if after is None else [{"SpecialToken": {"id": tokens[after], "type_id": 0}}]
        return [*first, *middle, *last]

    used = {tokens[n]: {"id": tokens[n], "ids": [n], "tokens": [tokens[n]]} for n in (before, after) if n is not None}
    pair = [*around(text), *around([{"Sequence": {"id": "B", "type_id": 1}}])]
    return {"type": "TemplateProcessing", "single": around(text), "pair": pair, "special_tokens": used}


def as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
