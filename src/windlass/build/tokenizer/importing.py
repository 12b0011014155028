"""Tokenizers from Hugging Face folders become artifacts: same file, same ids, special tokens and chat template kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from windlass.build.tokenizer.loading import load_tokenizer
from windlass.build.tokenizer.probes import RANDOM_TEXTS, longest_tokens, unicode_share
from windlass.build.tokenizer.specials import ROLES, Specials, load_specials
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError
from windlass.core.files import sha256_file, write_json
from windlass.core.workspace import Workspace


def import_tokenizer(ws: Workspace, source: Path, *, name: str | None = None) -> Artifact:
    """Stores the tokenizer of a folder, or of a tokenizer.json file, as an artifact of kind `tokenizer`.

    tokenizer.json is copied as it is; tokenizer_config.json is written anew from what the folder says about special
    tokens, chat template and length. `name`: by default that of the folder. Raises `InputError` when the folder holds
    no tokenizer.json, when a file is broken, or when a special token is not in the vocabulary.
    """
    folder = _folder(source)
    tokenizer, specials = load_tokenizer(folder), load_specials(folder)
    template = ChatTemplate.load(folder)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    name = name or folder.resolve().name
    digest = sha256_file(folder / "tokenizer.json")
    with (
        ws.runs.start("tokenizer", name, config={"imported": digest}) as run,
        ws.artifacts.build("tokenizer", name, run=run.id) as draft,
    ):
        shutil.copyfile(folder / "tokenizer.json", draft.path / "tokenizer.json")
        words = {number: token for token, number in vocabulary.items()}
        write_json(draft.path / "tokenizer_config.json", _config(folder, specials, words, template))
        report: dict[str, Any] = {
            "kind": "imported",
            "vocab_size": len(vocabulary),
            "highest_id": max(vocabulary.values()),
            "special_tokens": len(specials.ids),
            "chat_template": template is not None,
            "round_trip": {"random_texts": RANDOM_TEXTS, "random": unicode_share(tokenizer)},
            "longest_tokens": longest_tokens(tokenizer, specials.ids),
        }
        write_json(draft.path / "report.json", report)
        draft.card.update(
            {
                "description": f"Tokenizer imported from {folder.resolve().name}",
                "licence": None,
                "vocab_size": len(vocabulary),
                "unicode_round_trip": report["round_trip"]["random"],
            }
        )
        run.log(0, vocab_size=len(vocabulary), special_tokens=len(specials.ids))
    return draft.done


def _folder(source: Path) -> Path:
    folder = source.parent if source.name == "tokenizer.json" else source
    if not (folder / "tokenizer.json").is_file():
        slow = [n for n in ("vocab.txt", "vocab.json", "tokenizer.model", "spiece.model") if (folder / n).is_file()]
        raise InputError(
            f"{source} holds no tokenizer.json" + (f", only {slow[0]}." if slow else "."),
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of transformers writes one."
            if slow
            else "Name a folder with a tokenizer.json, or that file.",
        )
    return folder


def _config(folder: Path, specials: Specials, words: dict[int, str], template: ChatTemplate | None) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    theirs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    numbers = {role: getattr(specials, role) for role in ROLES}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": words[number] for role, number in numbers.items() if number is not None},
        "extra_special_tokens": [words[number] for number in sorted((*specials.sentinels, *specials.others))],
        "clean_up_tokenization_spaces": bool(theirs.get("clean_up_tokenization_spaces", False)),
        "model_max_length": theirs.get("model_max_length", 1_000_000_000),
    }
    return config if template is None else config | {"chat_template": template.source}
