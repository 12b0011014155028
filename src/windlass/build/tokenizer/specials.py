"""Special tokens: which token plays which role, under the names that transformers uses.

Roles stand in tokenizer_config.json as `bos_token`, `mask_token` and so on. Sentinels, the numbered place holders of
span corruption (Raffel et al. 2020), have no field there: they are the tokens spelled `<extra_id_0>`, `<extra_id_1>`…
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.chat_template import token_text
from windlass.core.errors import InputError

END_OF_TEXT = "<|endoftext|>"
"""Begins and ends every document of a tokenizer trained here, unless it is a WordPiece."""

ROLES = ("bos", "eos", "unk", "sep", "cls", "pad", "mask")

_CUSTOMARY = {
    "bos": ("<s>",),
    "eos": ("</s>",),
    "unk": ("[UNK]", "<unk>"),
    "sep": ("[SEP]",),
    "cls": ("[CLS]",),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What the classes of transformers assume when a folder names no role at all, as the first BERT checkpoints do."""


def sentinel(number: int) -> str:
    return f"<extra_id_{number}>"


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids of special tokens by role; None where the tokenizer has no such token."""

    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    sep: int | None = None
    cls: int | None = None
    pad: int | None = None
    mask: int | None = None
    sentinels: tuple[int, ...] = ()
    """`<extra_id_0>`, `<extra_id_1>`… in this order."""
    others: tuple[int, ...] = ()
    """Special tokens without a role, such as those of a chat format."""
    where: str = "the tokenizer"
    """What errors call it."""

    @property
    def ids(self) -> frozenset[int]:
        """All special tokens."""
        roles = (getattr(self, role) for role in ROLES)
        return frozenset(number for number in (*roles, *self.sentinels, *self.others) if number is not None)

    def need(self, role: str) -> int:
        """The id of a role. Raises `InputError` when the tokenizer has no token for it."""
        found: int | None = getattr(self, role)
        if found is None:
            raise InputError(
                f"{self.where} has no {role} token.",
                f"Train it with `windlass tokenizer train --special {role}=TOKEN`, or use another tokenizer.",
            )
        return found

    def need_sentinels(self, count: int) -> tuple[int, ...]:
        """The first `count` sentinels. Raises `InputError` when there are fewer."""
        if len(self.sentinels) < count:
            raise InputError(
                f"{self.where} has {len(self.sentinels)} sentinel tokens, but {count} are needed.",
                f"Train it with `windlass tokenizer train --sentinels {count}`.",
            )
        return self.sentinels[:count]

    @property
    def separator(self) -> int:
        """The token between documents: the end of text, or BERT's separator."""
        return self.sep if self.eos is None and self.sep is not None else self.need("eos")


def load_specials(tokenizer: Artifact | Path) -> Specials:
    """Reads the special tokens of a tokenizer artifact or of a model's folder.

    Raises `InputError` when a file is missing or broken, or when it names a token that the vocabulary lacks.
    """
    folder, where = (tokenizer, str(tokenizer)) if isinstance(tokenizer, Path) else (tokenizer.path, tokenizer.ref)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{where} holds no tokenizer.json.", "Name a tokenizer or a model.")
    content = _json(folder / "tokenizer.json")
    ids = _vocabulary(content)
    roles = special_roles(folder)
    if not roles:
        roles = {role: word for role, words in _CUSTOMARY.items() for word in words if word in ids}
    for role, token in roles.items():
        if token not in ids:
            raise InputError(f"{where}: its {role} token {token!r} is not in its vocabulary.", "Mend the file.")
    sentinels: list[int] = []
    while (place := sentinel(len(sentinels))) in ids:
        sentinels.append(ids[place])
    named = {ids[token] for token in roles.values()}.union(sentinels)
    marked = {int(added["id"]) for added in content.get("added_tokens", ()) if added.get("special")}
    return Specials(
        **{role: ids[token] for role, token in roles.items()},
        sentinels=tuple(sentinels),
        others=tuple(sorted(marked - named)),
        where=where,
    )


def special_roles(folder: Path) -> dict[str, str]:
    """Role -> token as tokenizer_config.json says, or special_tokens_map.json where older folders keep them."""
    known: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        known |= _json(folder / name) if (folder / name).is_file() else {}
    stated = {role: token_text(known.get(f"{role}_token")) for role in ROLES}
    return {role: token for role, token in stated.items() if token}


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of a parsed tokenizer.json."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    ids = (
        {str(entry[0]): number for number, entry in enumerate(vocabulary)}
        if isinstance(vocabulary, list)  # Unigram lists (piece, score)
        else dict(vocabulary)
    )
    return ids | {str(added["content"]): int(added["id"]) for added in tokenizer.get("added_tokens", ())}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).", "Fetch or make it again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object.", "Fetch or make it again.")
    return value
