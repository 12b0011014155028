"""BPE, Unigram and WordPiece: what each promises, the same for transformers, the same in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import check_lossless, load_specials, load_tokenizer, tokenizer_report, train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.tokenizer.training import train
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

PACKAGE = Path(__file__).parents[3] / "src" / "windlass" / "core"
TRICKY = [
    "",
    "<0x41> <unk> [UNK] <extra_id_0> <|im_start|> <|endoftext|>",
    "▁ the ▁▁ \u2581x",
    "a\0b\n\0\n",
    " \n\n\t x\r\n  y\u00a0\u2028z   ",
    "e\u0301 \u200d\ufeff \U0010ffff \ufffd",
    "-1,234.50e-6 ٣٤٥ ½ 0xFF 12345678901234567890",
    "def f(x):\n\tif x:\n        return {'a': [1, 2]}  # naïve 漢字 🙂\n",
]


def sources() -> list[str]:
    return [path.read_text() for path in sorted(PACKAGE.glob("*.py"))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace(tmp_path_factory.mktemp("home")) as ws:
        yield ws


@pytest.fixture(scope="module")
def corpus(workspace: Workspace) -> Artifact:
    return build_corpus(workspace, Folder(PACKAGE), CorpusSettings(heldout=0.2))


@pytest.fixture(scope="module")
def artifacts(workspace: Workspace, corpus: Artifact) -> dict[str, Artifact]:
    return {
        kind: train_tokenizer(
            workspace, corpus, 1200, kind=kind, name=kind, sentinels=100, special=["mask=<mask>", "<|tool|>"]
        )
        for kind in ("bpe", "unigram", "wordpiece")
    }


@pytest.fixture(scope="module")
def unigram(artifacts: dict[str, Artifact]) -> Tokenizer:
    return load_tokenizer(artifacts["unigram"])


@given(st.text(max_size=120))
@example("<0x41>")
@example("▁a ▁")
def test_unigram_gives_any_unicode_back(unigram: Tokenizer, text: str) -> None:
    assert check_lossless(unigram, [text]) == 1


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_lossless_kinds_give_tricky_texts_back(artifacts: dict[str, Artifact], kind: str) -> None:
    tokenizer = load_tokenizer(artifacts[kind])
    assert check_lossless(tokenizer, TRICKY) == len(TRICKY)
    special = load_specials(artifacts[kind]).ids
    assert not special.intersection(number for text in TRICKY for number in tokenizer.encode(text).ids)
    back = tokenizer_report(artifacts[kind])["round_trip"]
    assert back["heldout"] == back["train"] == back["random"] == 1.0 and back["first_changed"] is None


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_transformers_gives_the_same_ids(artifacts: dict[str, Artifact], kind: str) -> None:
    from transformers import AutoTokenizer

    artifact = artifacts[kind]
    theirs = AutoTokenizer.from_pretrained(artifact.path)
    ours, specials = load_tokenizer(artifact), load_specials(artifact)
    assert len(theirs) == ours.get_vocab_size() == 1200
    for text in (*TRICKY[2:], *sources()[:2]):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text, add_special_tokens=False).ids
        assert theirs.encode(text) == ours.encode(text).ids
    for role in ("bos", "eos", "unk", "sep", "cls", "pad", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(specials, role)
    assert theirs.mask_token == "<mask>"
    sentinels = [f"<extra_id_{number}>" for number in range(100)]
    assert tuple(theirs.convert_tokens_to_ids(sentinels)) == specials.need_sentinels(100)
    assert set(theirs.extra_special_tokens) == {"<|tool|>", *sentinels}
    # In transformers special tokens are read from text; in windlass text is text.
    ours.encode_special_tokens = False
    spelt = "a <extra_id_7> b <|tool|><mask> c"
    assert theirs.encode(spelt) == ours.encode(spelt).ids
    assert {specials.sentinels[7], specials.mask} <= set(theirs.encode(spelt))


def test_a_chat_is_read_as_transformers_reads_it(workspace: Workspace, corpus: Artifact) -> None:
    from transformers import AutoTokenizer

    artifact = train_tokenizer(workspace, corpus, 500, name="chat", chat_template=CHATML)
    theirs, ours = AutoTokenizer.from_pretrained(artifact.path), load_tokenizer(artifact)
    talk = [{"role": "user", "content": "Lift  it"}, {"role": "assistant", "content": "With a windlass."}]
    template = ChatTemplate.load(artifact.path)
    assert template is not None
    text, marks = template.render_marked(talk)
    assert theirs.apply_chat_template(talk, tokenize=False) == text
    encoded = theirs.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    ours.encode_special_tokens = False
    assert ours.encode(text).ids == encoded["input_ids"]
    assert {ours.token_to_id("<|im_start|>"), ours.token_to_id("<|im_end|>")} <= set(encoded["input_ids"])
    said = [i for i, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert ours.decode(said, skip_special_tokens=False) == "With a windlass.<|im_end|>" == text[slice(*marks[0])]


def test_wordpiece_follows_bert(artifacts: dict[str, Artifact]) -> None:
    from transformers import BertTokenizerFast

    ours, specials = load_tokenizer(artifacts["wordpiece"]), load_specials(artifacts["wordpiece"])
    names = {role: ours.id_to_token(getattr(specials, role)) for role in ("pad", "unk", "cls", "sep")}
    assert names == {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"} and specials.pad == 0
    assert specials.separator == specials.sep and specials.eos is None
    bert = BertTokenizerFast(vocab=ours.get_vocab(), mask_token="<mask>")
    for first, second in (("Zwölf Éclairs, 12 return-values!", None), ("def f(x)", "the 漢 path")):
        pair = bert(first, second)
        encoding = ours.encode(first, second)
        assert encoding.ids == pair["input_ids"] and encoding.type_ids == pair["token_type_ids"]
    assert ours.decode(ours.encode("Return the PATH.").ids) == "return the path."


def test_wordpiece_says_what_it_loses(artifacts: dict[str, Artifact]) -> None:
    report = tokenizer_report(artifacts["wordpiece"])
    assert report["round_trip"]["heldout"] < 0.5 and report["round_trip"]["random"] < 0.5
    assert report["round_trip"]["first_changed"]["text"] != report["round_trip"]["first_changed"]["came_back"]
    ours = load_tokenizer(artifacts["wordpiece"])
    unk = load_specials(artifacts["wordpiece"]).unk
    assert ours.encode("漢").ids.count(unk) == 1 and 0 <= report["unknown"] < 0.01


def test_cased_wordpiece_keeps_case_and_accents() -> None:
    texts = ["Zoë met Zoë and zoe near Paris and paris\n" * 20]
    cased = train(texts, 330, kind="wordpiece", cased=True, allow_smaller=True).tokenizer
    assert cased.decode(cased.encode("Zoë and zoe").ids) == "Zoë and zoe"
    plain = train(texts, 330, kind="wordpiece", allow_smaller=True).tokenizer
    assert plain.decode(plain.encode("Zoë and zoe").ids) == "zoe and zoe"


SCRIPT = """
import hashlib, sys
from pathlib import Path
from windlass.build.tokenizer.chat import CHATML
from windlass.build.tokenizer.training import train
texts = [path.read_text() for path in sorted(Path(sys.argv[1]).glob("*.py"))]
for kind in ("bpe", "unigram", "wordpiece"):
    tokenizer = train(texts, 900, kind=kind, special=["<|a|>"]).tokenizer
    print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


def test_every_process_learns_the_same() -> None:
    command = [sys.executable, "-c", SCRIPT, str(PACKAGE)]
    found = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)}
    backwards = [
        hashlib.sha256(
            train(sources()[::-1], 900, kind=kind, special=["<|a|>"]).tokenizer.to_str().encode()
        ).hexdigest()
        for kind in ("bpe", "unigram", "wordpiece")
    ]
    assert found == {"\n".join(backwards) + "\n"}


def test_bpe_learns_what_the_library_learns() -> None:
    from tokenizers import models, pre_tokenizers, trainers

    from windlass.build.tokenizer.bpe import BPE

    theirs = Tokenizer(models.BPE())
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([BPE.rules(False)[1], in_bytes])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = list(dict.fromkeys(BPE.roles.values()))
    theirs.train_from_iterator(
        sources(),
        trainers.BpeTrainer(
            vocab_size=1500, min_frequency=2, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    assert train(sources(), 1500).tokenizer.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_too_little_text_is_an_error_or_said(kind: str) -> None:
    with pytest.raises(InputError, match="larger than the text supports"):
        train(["a few words only"], 3000, kind=kind)
    assert train(["a few words only"], 3000, kind=kind, allow_smaller=True).tokenizer.get_vocab_size() < 320
    with pytest.raises(InputError, match="no text to train"):
        train(["", ""], 3000, kind=kind)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_a_script_of_many_characters_fits_a_small_vocabulary(kind: str) -> None:
    texts = ["".join(chr(0x4E00 + (i * 7 + j * j) % 3000) for j in range(40)) + " words here\n" for i in range(200)]
    trained = train(texts, 600, kind=kind, allow_smaller=True)
    assert trained.tokenizer.get_vocab_size() <= 600
    if trained.kind.lossless:
        assert check_lossless(trained.tokenizer, texts) == 200


@pytest.mark.parametrize(
    ("special", "message"),
    [
        (["mask=MASK"], "'MASK' could be a word"),
        (["pad="], "'' could be a word"),
        (["glue=<|glue|>"], "'glue' in --special glue=<|glue|> is no role"),
    ],
)
def test_special_tokens_that_make_no_sense(special: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        train(["text"], 400, special=special)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match="no kind of tokenizer called 'sentencepiece'"):
        train(["text"], 400, kind="sentencepiece")  # type: ignore[arg-type]
