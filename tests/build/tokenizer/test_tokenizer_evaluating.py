"""Reports of tokenizers: each figure as an independent count gives it, several tokenizers side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from windlass.build.corpus import CorpusSettings, build_corpus, corpus_documents
from windlass.build.tokenizer import (
    compare_tokenizers,
    comparison_reports,
    load_tokenizer,
    tokenizer_comparison,
    tokenizer_report,
    tokenizer_summary,
    train_tokenizer,
)
from windlass.build.tokenizer.probes import longest_tokens, numbers
from windlass.cli.main import main
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

PACKAGE = Path(__file__).parents[3] / "src" / "windlass" / "core"
GERMAN = "Die schwere Last wird mit jeder Umdrehung ein wenig höher gehoben, und die Klinke hält sie fest. "
ENGLISH = "The heavy load is lifted a little with every turn, and the pawl keeps it from slipping back. "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def workspace(home: Path) -> Iterator[Workspace]:
    docs = home / "docs"
    docs.mkdir()
    for path in PACKAGE.glob("*.py"):
        (docs / path.name).write_text(path.read_text())
    for number in range(8):
        (docs / f"german{number}.md").write_text(f"# Blatt {number}\n\n" + f"{number}. {GERMAN}{number * 1234}" * 5)
        (docs / f"english{number}.md").write_text(f"# Page {number}\n\n" + f"{number}. {ENGLISH}{number * 777}" * 5)
    with Workspace(home) as ws:
        build_corpus(ws, Folder(docs), CorpusSettings(heldout=0.4, near=1.0))
        yield ws


@pytest.fixture(scope="module")
def corpus(workspace: Workspace) -> Artifact:
    return workspace.artifacts.get("corpus")


@pytest.fixture(scope="module")
def pair(workspace: Workspace, corpus: Artifact) -> list[Artifact]:
    return [train_tokenizer(workspace, corpus, 700, kind=kind, name=kind) for kind in ("bpe", "wordpiece")]


@pytest.fixture(scope="module")
def reports(workspace: Workspace, corpus: Artifact, pair: list[Artifact]) -> dict[str, dict[str, object]]:
    stored = compare_tokenizers(workspace, [*pair, pair[0].path], corpus, by_language=True)
    assert stored.kind == "report" and stored.record.name == "bpe-eval"
    assert stored.record.parents == [
        ("corpus", corpus.digest),
        ("tokenizer", pair[0].digest),
        ("tokenizer", pair[1].digest),
    ]
    found = comparison_reports(stored)
    assert list(found) == ["bpe@1", "wordpiece@1", str(pair[0].path)]
    assert found["bpe@1"] == found[str(pair[0].path)]
    return found


def test_groups_hold_what_was_counted(
    corpus: Artifact, pair: list[Artifact], reports: dict[str, dict[str, object]]
) -> None:
    tokenizer, report = load_tokenizer(pair[0]), reports["bpe@1"]
    documents = list(corpus_documents(corpus, "heldout"))
    for kind in ("page", "source"):
        texts = [d.text for d in documents if d.metadata["kind"] == kind]
        row = report["heldout"][kind]
        assert row["documents"] == len(texts) and row["bytes"] == sum(len(text.encode()) for text in texts)
        assert row["tokens"] == sum(len(tokenizer.encode(text).ids) for text in texts)
        assert row["fertility"] == pytest.approx(row["tokens"] / sum(len(t.split()) for t in texts), abs=1e-4)
    german = [d for d in documents if "german" in d.id]
    assert german and report["languages"]["de"]["documents"] == len(german)
    assert report["languages"]["en"]["documents"] >= 1
    used = {i for d in corpus_documents(corpus) for i in tokenizer.encode(d.text).ids}
    assert report["unused"] == 700 - len(used) - report["special_tokens"]
    assert tokenizer_report(pair[0])["heldout"] == report["heldout"]
    assert tokenizer_report(pair[0])["languages"] == {}  # not looked for, so that training needs nothing else


def test_losses_and_unknown_tokens_are_shares(
    corpus: Artifact, pair: list[Artifact], reports: dict[str, dict[str, object]]
) -> None:
    tokenizer = load_tokenizer(pair[1])
    ids = [
        i for d in corpus_documents(corpus, "heldout") for i in tokenizer.encode(d.text, add_special_tokens=False).ids
    ]
    unknown = ids.count(tokenizer.token_to_id("[UNK]")) / len(ids)
    assert reports["wordpiece@1"]["unknown"] == pytest.approx(unknown, abs=1e-6)
    assert reports["bpe@1"]["unknown"] is None
    assert reports["bpe@1"]["round_trip"]["heldout"] == 1.0 > reports["wordpiece@1"]["round_trip"]["heldout"]


def test_tables_are_for_people(reports: dict[str, dict[str, object]]) -> None:
    text = tokenizer_summary(reports["wordpiece@1"])
    assert "language de" in text and "came back as" in text and "unknown tokens: " in text
    lines = tokenizer_comparison(reports).splitlines()
    assert len(lines) == 5 and lines[2].startswith("bpe@1") and "100.0%" in lines[2]


def characters(vocabulary: str) -> Tokenizer:
    """One token per character."""
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def test_numbers_are_measured_by_their_digits() -> None:
    tokenizer = characters("?0123456789.,")
    found = numbers(tokenizer, Counter({"12": 3, "1,000.5": 1}))
    assert found == {"found": 4, "digits_per_token": round(11 / 13, 4), "same_cut": 1.0}
    assert numbers(tokenizer, Counter())["digits_per_token"] is None
    uneven = Tokenizer(models.BPE({str(d): d for d in range(10)} | {"11": 10, "12": 11}, [("1", "1"), ("1", "2")]))
    assert 0.5 < numbers(uneven, Counter({"11": 1}))["same_cut"] < 1.0


def test_longest_tokens_are_texts() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "abc": 1, "bcd": 2, "<special>": 3}, unk_token="a"))
    assert longest_tokens(tokenizer, [3], 2) == ["abc", "bcd"]


def test_a_corpus_that_holds_nothing_out(workspace: Workspace, pair: list[Artifact], tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("# Page\n\n" + ENGLISH)
    single = build_corpus(workspace, Folder(tmp_path), name="single")
    with pytest.raises(InputError, match="single@1 holds nothing out"):
        compare_tokenizers(workspace, pair, single)


def test_from_the_command_line(
    home: Path, pair: list[Artifact], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    capsys.readouterr()
    template = home / "chat.jinja"
    template.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    command = ["tokenizer", "train", "corpus", "--vocab", "500", "--kind", "unigram", "--name", "mine"]
    options = ["--special", "mask=<mask>", "<|tool|>", "--sentinels", "5", "--chat-template", str(template)]
    assert main([*command, *options]) == 0
    assert "mine@1" in capsys.readouterr().out
    assert main(["tokenizer", "eval", "mine", "corpus", "--against", "bpe", str(pair[1].path), "--languages"]) == 0
    out = capsys.readouterr().out
    assert "mine@1  " in out and "bpe@1  " in out and "mine-eval@1" in out
    assert main(["tokenizer", "import", str(pair[0].path), "--name", "again"]) == 0
    assert "again@1" in capsys.readouterr().out
    assert main(["tokenizer", "eval", "again", "corpus"]) == 0
    path = Path(capsys.readouterr().out.rstrip().rsplit(" ", 1)[1])
    again = json.loads(path.read_text())["tokenizers"]["again@1"]
    assert again["heldout"] == tokenizer_report(pair[0])["heldout"]
