"""Synonyms for METEOR, from a file and from a WordNet's folder; held to NLTK on a WordNet that is made up here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import nltk
import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.translate.meteor_score import meteor_score

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.meteor import meteor, words
from windlass.evaluate.metrics.text.synonyms import WordNet, read_synonyms

SENSES: Mapping[str, Sequence[Sequence[str]]] = {
    "noun": [["car", "automobile", "motor_car"], ["mouse", "rodent"], ["woman", "lady"], ["wolf", "canine"]],
    "verb": [["begin", "start", "commence"], ["start", "jump"], ["run", "operate"]],
    "adj": [["large", "big"], ["galore(ip)", "abundant"], ["nice", "pleasant"]],
    "adv": [["quickly", "rapidly"]],
}
IRREGULAR = {"noun": [("mice", "mouse"), ("women", "woman")], "verb": [("began", "begin"), ("ran", "run")]}
TEXTS = [
    ("The mice ran", ["The rodent operate quickly"]),
    ("he began the automobiles rapidly", ["he start the car quickly", "the automobile commence"]),
    ("nicer galore wolves and ladies start start", ["pleasant abundant canine and women jump begin"]),
    ("a larger car started", ["a big automobile commence"]),
    ("nothing here is alike", ["all of it differs"]),
    ("big large big", ["large big large big"]),
]


def write_wordnet(folder: Path) -> Path:
    folder.mkdir(parents=True)
    letters = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
    for part, senses in SENSES.items():
        data, index = "  1 a licence, in lines that begin with two spaces\n", {}
        for members in senses:
            listed = " ".join(f"{word} 0" for word in members)
            for word in members:
                index.setdefault(word.partition("(")[0], []).append(len(data))
            frames = " 00" if part == "verb" else ""
            data += f"{len(data):08d} 00 {letters[part]} {len(members):02x} {listed} 000{frames} | a gloss  \n"
        lines = [
            f"{lemma} {letters[part]} {len(at)} 1 @ {len(at)} 0 {' '.join(f'{one:08d}' for one in at)}  \n"
            for lemma, at in sorted(index.items())
        ]
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text("  1 a licence\n" + "".join(lines))
        (folder / f"{part}.exc").write_text("".join(f"{a} {b}\n" for a, b in IRREGULAR.get(part, [])))
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    for name in ("index.sense", "cntlist.rev"):
        (folder / name).write_text("")
    return folder


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordnet(tmp_path_factory.mktemp("words") / "wordnet")


def test_meteor_with_a_wordnet_is_nltks(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no other languages
        monkeypatch.setattr(nltk.data, "path", [str(wordnet.parent)])  # it opens nothing elsewhere
        monkeypatch.setattr(WordNetCorpusReader, "map_wn", lambda self: None)  # to the version of other languages
        theirs = WordNetCorpusReader(str(wordnet), None)
        ours = meteor([text for text, _ in TEXTS], [right for _, right in TEXTS], synonyms=read_synonyms(wordnet))
        for (text, right), score in zip(TEXTS, ours):
            assert score == pytest.approx(
                meteor_score([words(one) for one in right], words(text), wordnet=theirs), abs=1e-12
            )
        for file in theirs._data_file_map.values():  # it leaves them open
            file.close()
    without = meteor([text for text, _ in TEXTS], [right for _, right in TEXTS])
    assert (ours > without).sum() >= 3 and ours[4] == without[4] == 0


def test_a_word_has_the_senses_of_its_base_form(wordnet: Path) -> None:
    known = WordNet(wordnet)
    assert known("mice") == {"mouse", "rodent"} and known("Wolves") == {"wolf", "canine"}
    assert known("start") == {"begin", "start", "commence", "jump"} and known("galore") == {"galore", "abundant"}
    assert known("car") == {"car", "automobile"}, "of single words, as a text has them"
    assert known("table") == frozenset()


def test_a_folder_as_it_is_installed_has_the_files_below(wordnet: Path, tmp_path: Path) -> None:
    (tmp_path / "dict").symlink_to(wordnet)
    assert read_synonyms(tmp_path)("big") == {"large", "big"}


def test_a_file_holds_groups(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(
        "# of cars\ncar, Automobile\n\nbegin, start , commence # and so on\nstart, jump\n", encoding="utf-8"
    )
    known = read_synonyms(path)
    assert set(known("start")) == {"begin", "start", "commenc", "jump"} and not known("table")
    found, right = ["the automobiles will commence"], [["the car will begin"]]
    assert meteor(found, right, synonyms=known)[0] > 0.99 > meteor(found, right)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no synonyms"),
        ("# nothing\n", "holds no synonyms"),
        ("car\n", "line 1 is no group"),
        ("a, b\ncar, , x\n", "line 2 is no group"),
        ("a => b\n", "line 1 is no group"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "words.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_synonyms(path)


def test_a_folder_that_is_none_is_refused(wordnet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.noun cannot be read"):
        read_synonyms(tmp_path)
    broken = write_wordnet(tmp_path / "broken")
    (broken / "data.noun").write_text("\n" * 5000)
    with pytest.raises(InputError, match=r"data\.noun, byte \d+: no sense"):
        read_synonyms(broken)("car")
    (broken / "index.adv").write_text("quickly r 2 0\n")
    with pytest.raises(InputError, match=r"index\.adv, line 1"):
        read_synonyms(broken)
