"""What each token of a vocabulary writes, byte for byte: a grammar speaks of bytes, a model of tokens.

The bytes are read off the tokenizer's decoder, and then checked: what the tokenizer makes of random pairs of tokens
must be what their bytes say. A tokenizer whose text is not the sum of its tokens (one that tidies spaces, say) is
refused, as no grammar could hold for the text that comes out.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from windlass.core.errors import Unsupported

PROBES = 200


@dataclass(frozen=True, slots=True)
class Spelling:
    """`tokens[id]` is what a token writes; empty for special tokens, which write nothing."""

    tokens: Sequence[bytes]
    special: frozenset[int]
    """Tokens that no text spells: the end of a turn, padding, place holders."""
    lead: bool
    """Whether a space at the very beginning of a text is dropped, as by Llama 2's tokenizer."""
    always_led: bool
    """Whether every text begins with such a space (WordPiece, whose words all do)."""
    encode: Callable[[str], list[int]]
    """Tokens of a text in the middle of another: nothing put before it, no special tokens in it."""
    marks: Sequence[int] = ()
    """Tokens that are visible though they stand for one thing only, such as `[TOOL_CALLS]`."""

    def text(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.tokens[token] for token in tokens)


def spell(tokenizer: Tokenizer, visible: Collection[str] = ()) -> Spelling:
    """The spelling of a tokenizer. `visible` are special tokens that count as text, such as `[TOOL_CALLS]`.

    Raises `Unsupported` when the text of a tokenizer is not the sum of its tokens' bytes.
    """
    described = json.loads(tokenizer.to_str())
    steps = _steps(described.get("decoder"))
    write = _writer(steps)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    words = [tokenizer.id_to_token(number) for number in range(size)]
    tokens = [b"" if word is None else write(word) for word in words]
    special, marks = set(), []
    for number, added in tokenizer.get_added_tokens_decoder().items():
        if added.special and added.content not in visible:
            special.add(number)
            tokens[number] = b""
        else:
            tokens[number] = _in_a_text(tokenizer, number)
            marks += [number] if added.content in visible else []
    wordpiece = any(step["type"] == "WordPiece" for step in steps)
    lead, encode = wordpiece or _drops_space(steps), _inside(described, set(visible))
    spelling = Spelling(tokens, frozenset(special), lead, wordpiece, encode, marks)
    _check(tokenizer, spelling)
    return spelling


def _in_a_text(tokenizer: Tokenizer, number: int) -> bytes:
    """What an added token writes behind another one: some tokenizers put a space before it."""
    before = tokenizer.encode("a", add_special_tokens=False).ids
    start = tokenizer.decode(before, skip_special_tokens=False)
    text = str(tokenizer.decode([*before, number], skip_special_tokens=False))
    return text[len(start) :].encode()


def _steps(decoder: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        raise Unsupported("The tokenizer has no decoder: its words come out with spaces between them.", _HINT)
    if decoder["type"] == "Sequence":
        return [step for inner in decoder["decoders"] for step in _steps(inner)]
    return [dict(decoder)]


_HINT = "Constraints (JSON schemas, regular expressions, tool calls) need a tokenizer that writes any text exactly."


def _writer(steps: Sequence[Mapping[str, Any]]) -> Callable[[str], bytes]:
    """What a decoder makes of one token in the middle of a text."""
    kinds = {str(step["type"]) for step in steps}
    unknown = kinds - {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "WordPiece"}
    if unknown:
        raise Unsupported(f"The tokenizer's decoder '{min(unknown)}' does not write tokens one by one.", _HINT)
    if "ByteLevel" in kinds:
        return byte_level
    if "WordPiece" in kinds:
        step = next(step for step in steps if step["type"] == "WordPiece")
        if step["cleanup"]:
            raise Unsupported(
                "The tokenizer tidies the spaces before marks, so its text is not what was written.", _HINT
            )
        inside = str(step["prefix"])
        return lambda word: word.removeprefix(inside).encode() if word.startswith(inside) else f" {word}".encode()
    replaced: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Replace":
            if "String" not in step["pattern"]:
                raise Unsupported("The tokenizer's decoder replaces by a regular expression.", _HINT)
            replaced.append((step["pattern"]["String"], step["content"]))
        elif step["type"] == "Metaspace":
            replaced.append((step["replacement"], " "))
    fallback = "ByteFallback" in kinds

    def write(word: str) -> bytes:
        if fallback and len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:5], 16)])
        for old, new in replaced:
            word = word.replace(old, new)
        return word.encode()

    return write


def _drops_space(steps: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        (step["type"] == "Strip" and step["content"] == " " and step["start"] > 0)
        or (step["type"] == "Metaspace" and step["prepend_scheme"] != "never")
        for step in steps
    )


def byte_level(word: str) -> bytes:
    """What a token of a byte-level vocabulary writes."""
    letters = _byte_letters()
    return bytes(letters[letter] for letter in word) if all(letter in letters for letter in word) else word.encode()


@functools.cache
def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable ones stand for themselves, the rest for the
    code points from 256 on (Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _inside(described: dict[str, Any], visible: Collection[str]) -> Callable[[str], list[int]]:
    """Encodes text that stands inside another text: no space is put before it, and no special token is read into it."""

    def without_space(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        if part.get("type") == "Sequence":
            name = next(key for key in ("normalizers", "pretokenizers") if key in part)
            kept = [inner for step in part[name] if (inner := without_space(step)) is not None]
            return part | {name: kept} if kept else None
        if part.get("type") == "Prepend":
            return None
        if part.get("type") == "Metaspace":
            return part | {"prepend_scheme": "never"}
        return part | {"add_prefix_space": False} if part.get("type") == "ByteLevel" else part

    changed = described | {
        "normalizer": without_space(described.get("normalizer")),
        "pre_tokenizer": without_space(described.get("pre_tokenizer")),
        "added_tokens": [
            added | {"special": added["special"] and added["content"] not in visible}
            for added in described.get("added_tokens", ())
        ],
        "truncation": None,
        "padding": None,
    }
    tokenizer = Tokenizer.from_str(json.dumps(changed))
    tokenizer.encode_special_tokens = True
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _check(tokenizer: Tokenizer, spelling: Spelling) -> None:
    """Random pairs must decode to what their bytes say, where these are whole characters."""
    chance = random.Random(0)
    text = [number for number, written in enumerate(spelling.tokens) if written and number not in spelling.special]
    for _ in range(PROBES if len(text) > 1 else 0):
        pair = chance.sample(text, 2)
        try:
            said = spelling.text(pair).decode()
        except UnicodeDecodeError:
            continue
        if spelling.lead:
            said = said.removeprefix(" ")
        if (found := tokenizer.decode(pair, skip_special_tokens=False)) != said:
            if spelling.always_led and spelling.tokens[pair[0]][:1] != b" ":
                continue  # the middle of a word in front of all others, which no text has
            raise Unsupported(
                f"The tokenizer's text is not what its tokens say: {pair[0]} and {pair[1]} should write {said!r}, "
                f"but come out as {found!r}.",
                _HINT,
            )
