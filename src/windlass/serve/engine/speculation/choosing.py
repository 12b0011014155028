"""How a model that is served guesses ahead, from what its owner says: by lookup, or by the draft model in a folder."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from windlass.build.transformer.hf import load_decoder
from windlass.core.errors import InputError
from windlass.serve.engine.arithmetic.linears import prepare
from windlass.serve.engine.speculation.speculation import Speculation

LOOKUP = "lookup"


def speculation_of(how: str | Path, tokenizer: Tokenizer, policy: str = "fp32") -> Speculation:
    """`how`: "lookup", or the folder of a smaller decoder with the same tokens as `tokenizer`, whose matrices are run
    by `policy`.

    Raises `InputError` naming the file at fault, or the first token that differs.
    """
    if how == LOOKUP:
        return Speculation()
    folder = Path(how)
    theirs = folder / "tokenizer.json"
    if not theirs.is_file():
        raise InputError(f"{theirs} is missing.", "To guess ahead, give 'lookup' or the folder of a draft model.")
    _check_same(tokenizer, Tokenizer.from_file(str(theirs)), theirs)
    draft = load_decoder(folder)
    if policy != "fp32":
        prepare(draft, policy)
    return Speculation(draft)


def _check_same(ours: Tokenizer, theirs: Tokenizer, where: Path) -> None:
    known, found = ours.get_vocab(), theirs.get_vocab()
    if known == found:
        return
    token = min((known.items() ^ found.items()), key=lambda item: (item[1], item[0]))[0]
    raise InputError(
        f"{where}: the draft model has other tokens than the model that is served: '{token}' is {found.get(token)} "
        f"there and {known.get(token)} here.",
        "Choose a draft model with the same tokenizer.",
    )
