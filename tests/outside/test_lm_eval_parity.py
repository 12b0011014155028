"""The same model gets the same score as in lm-evaluation-harness, item by item: by its own definitions of the tasks.

It lives in an environment of its own, which `make lm-eval-peers` builds; `WINDLASS_LM_EVAL` may name another.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = Path(os.environ.get("WINDLASS_LM_EVAL", ROOT / ".venv-lm-eval-peers"))
DATA = os.environ.get("WINDLASS_DATA")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (PEERS / "bin/python").exists(), reason=f"no lm-eval in {PEERS}: run `make lm-eval-peers`"),
    pytest.mark.skipif(not DATA, reason="WINDLASS_DATA names no folder with the public data"),
]
pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.serve.engine_world import TEMPLATE  # noqa: E402

from windlass.evaluate.experiments.results import Results  # noqa: E402
from windlass.evaluate.harness.definitions import read_benchmark  # noqa: E402
from windlass.evaluate.harness.items import Asking, Exam, make_exam  # noqa: E402
from windlass.evaluate.harness.running import run  # noqa: E402
from windlass.loop.benchmarks.lm_eval_tasks import export_task  # noqa: E402
from windlass.loop.benchmarks.models import Opening, open_model  # noqa: E402

LIMIT = 60
Row = Mapping[str, Any]


# ---- our rows, in the form in which lm-eval's own definitions expect them


def arc(row: Row) -> Row:
    labels = "ABCDEFGH"[: len(row["choices"])]
    return {
        "question": row["query"].removeprefix("Question: "),
        "choices": {"text": row["choices"], "label": list(labels)},
        "answerKey": labels[row["gold"]],
    }


def openbook(row: Row) -> Row:
    return {"question_stem": row["query"], **{key: arc(row)[key] for key in ("choices", "answerKey")}}


def winogrande(row: Row) -> Row:
    one, other = row["context_options"]
    begin = one[: next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)].rpartition(" ")[0] + " "
    sentence = f"{begin}_ {row['continuation']}"
    return {
        "sentence": sentence,
        "option1": one[len(begin) :],
        "option2": other[len(begin) :],
        "answer": str(row["gold"] + 1),
    }


def lambada(row: Row) -> Row:
    return {"text": f"{row['context']} {row['continuation']}"}


def boolq(row: Row) -> Row:
    passage, _, question = row["query"].rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": row["gold"]}


def mmlu(row: Row) -> Row:
    return {"question": row["question"], "choices": [row[f"choice{i}"] for i in range(4)], "answer": int(row["answer"])}


def as_it_is(row: Row) -> Row:
    return dict(row)


THEIRS: dict[str, tuple[str, Callable[[Row], Row], Mapping[str, Any]]] = {
    "piqa": ("piqa/piqa.yaml", as_it_is, {}),
    "arc_easy": ("arc/arc_easy.yaml", arc, {}),
    "arc_challenge": ("arc/arc_easy.yaml", arc, {}),
    "openbook_qa": (
        "openbookqa/openbookqa.yaml", openbook,
        {"metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_mutual_info")]},
    ),
    "winogrande": ("winogrande/default.yaml", winogrande, {}),
    "lambada": ("lambada/lambada_openai.yaml", lambada, {}),
    "boolq": ("super_glue/boolq/default.yaml", boolq, {}),
    "blimp/passive_1": ("blimp/passive_1.yaml", as_it_is, {}),
    "mmlu/college_physics": ("mmlu/default/mmlu_college_physics.yaml", mmlu, {"num_fewshot": 5}),
}  # fmt: skip
"""Task -> lm-eval's definition of it, how rows are said there, and what is asked otherwise."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights that are strong enough to have opinions, and a vocabulary learned from the data."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("parity") / "model"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [str(row) for row in rows_of("arc_easy")[:500]] + [str(row) for row in rows_of("piqa")[:500]]
    special = ["<s>", "</s>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=2000,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    transformers.set_seed(0)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 2048, "initializer_range": 0.2,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).save_pretrained(folder)
    return folder


def exam_of(task: str, asking: Asking | None = None) -> Exam:
    name, _, part = task.partition("/")
    return make_exam(read_benchmark(name), Path(DATA or ""), asking or Asking(limit=LIMIT), part)


def rows_of(task: str) -> list[Row]:
    return [item.row for item in exam_of(task, Asking(limit=500, shots=0)).items]


def ours(model: Path, exams: Sequence[Exam], **how: Any) -> dict[str, Results]:
    opened = open_model(None, str(model), Opening(**how))
    try:
        return {exam.benchmark.name: run(exam, opened) for exam in exams}
    finally:
        opened.close()


def theirs(backend: str, model: Path | str, tasks: Path, out: Path, **settings: str) -> dict[str, Any]:
    quiet = {
        "HF_HOME": str(out.parent),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    path = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [str(PEERS / "bin/python"), str(HERE / "lm_eval_side.py"), backend, str(model), str(tasks), str(out)],
        env=os.environ | quiet | path | settings, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    found: dict[str, Any] = json.loads(out.read_text())["tasks"]
    return found


def write_theirs(task: str, folder: Path) -> str:
    """lm-eval's own definition of a task, over our rows."""
    definition, convert, changed = THEIRS[task]
    name = f"theirs_{task.replace('/', '_')}"
    files = {"test": [item.row for item in exam_of(task).items]}
    splits = {"test_split": "test", "training_split": None, "validation_split": None}
    if task.startswith("mmlu"):
        from windlass.evaluate.harness.rows import read_files

        files["dev"] = read_files(Path(DATA or ""), f"lm_eval/mmlu/dev/{task.partition('/')[2]}_dev.csv.gz")[0].rows[:5]
        splits["fewshot_split"] = "dev"
    for split, rows in files.items():
        (folder / f"{name}.{split}.jsonl").write_text("".join(json.dumps(convert(row)) + "\n" for row in rows))
    data = {split: str(folder / f"{name}.{split}.jsonl") for split in files}
    made = {
        "include": f"LM_EVAL/{definition}", "task": name, "tag": None, "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": data}, **splits, **changed,
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(made))
    return name


def item_logprobs(results: Results) -> list[list[float]]:
    found = []
    for one in results.items:
        said = one.output.get("logprobs")
        found.append(said if said is not None else [one.output["logprob"]])
    return found


@pytest.fixture(scope="module")
def by_their_definitions(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("theirs")
    for task in THEIRS:
        write_theirs(task, folder)
    return theirs("hf", model, folder, folder / "out.json")


@pytest.mark.parametrize("task", THEIRS)
def test_the_same_scores_item_by_item(task: str, model: Path, by_their_definitions: dict[str, Any]) -> None:
    exam = exam_of(task)
    results = ours(model, [exam])[exam.benchmark.name]
    found = by_their_definitions[f"theirs_{task.replace('/', '_')}"]
    assert len(found["items"]) == len(results.items) >= 45
    for mine, other, logprobs in zip(results.items, found["items"], item_logprobs(results), strict=True):
        replies = other["replies"]
        assert [reply[0] for reply in replies][: len(logprobs)] == pytest.approx(logprobs, abs=2e-3)
        for metric in exam.benchmark.metrics:
            if metric in other["scores"]:
                assert mine.values[metric] == other["scores"][metric], (task, mine.item, metric)
    shared = [one for one in exam.benchmark.measures(results.items) if one.metric in found["whole"]]
    assert shared
    for measure in shared:
        assert measure.interval.estimate == pytest.approx(float(found["whole"][measure.metric]), rel=1e-3)


EXPORTED = ("triviaqa", "speeches", "winograd", "copa", "strategy_qa", "commonsense_qa", "simple_arithmetic")


def test_exported_exams_give_the_same_scores_there(model: Path, tmp_path: Path) -> None:
    """Also behind our examples, and texts that are written or longer than the window; and our engine as its backend."""
    few = Asking(limit=12)
    exams = [exam_of(task, few) for task in EXPORTED]
    names = {exam.benchmark.name: export_task(exam, tmp_path) for exam in exams}
    mine = ours(model, exams)
    for backend in ("hf", "windlass"):
        found = theirs(backend, model, tmp_path, tmp_path / f"{backend}.json", LM_EVAL_BATCH="1")
        for name, results in mine.items():
            items = found[names[name]]["items"]
            assert len(items) == len(results.items)
            for one, other in zip(results.items, items, strict=True):
                if name == "triviaqa":
                    assert other["replies"] == [one.output["text"]], (backend, one.item)
                elif name == "speeches":
                    assert other["replies"][0] == pytest.approx(one.output["logprob"], rel=1e-5)
                else:
                    logprobs = one.output.get("logprobs") or [one.output["logprob"]]
                    assert [reply[0] for reply in other["replies"]] == pytest.approx(logprobs, abs=2e-3)
        bits = float(found[names["speeches"]]["whole"]["bits_per_byte"])
        measure = exams[EXPORTED.index("speeches")].benchmark.measures(mine["speeches"].items)[0]
        assert measure.interval.estimate == pytest.approx(bits, rel=1e-5)


def test_our_engine_behind_their_chat_templates(model: Path, tmp_path: Path) -> None:
    """Their conversations through our template, against ours: no text stands between the turns and the answer."""
    task = "arc_easy"
    write_theirs(task, tmp_path)
    exam = exam_of(task, Asking(limit=LIMIT, chat=True))
    mine = item_logprobs(ours(model, [exam])[task])
    for backend in ("hf", "windlass"):
        found = theirs(backend, model, tmp_path, tmp_path / f"{backend}.json", LM_EVAL_CHAT="1")
        replies = [[reply[0] for reply in one["replies"]] for one in found[f"theirs_{task}"]["items"]]
        assert np.concatenate(replies) == pytest.approx(np.concatenate(mine), abs=2e-3), backend


def test_its_own_command_line_runs_our_engine(model: Path, tmp_path: Path) -> None:
    name = write_theirs("piqa", tmp_path)
    path = tmp_path / f"{name}.yaml"
    tasks = next(PEERS.glob("lib/python3*/site-packages/lm_eval/tasks"))
    path.write_text(path.read_text().replace("LM_EVAL", str(tasks)))
    quiet = {
        "HF_HOME": str(tmp_path),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [
            str(PEERS / "bin/python"), "-m", "windlass.loop.benchmarks.lm_eval", "run", "--model", "windlass",
            "--model_args",
            f"pretrained={model}", "--tasks", name, "--include_path", str(tmp_path),
            "--output_path", str(tmp_path / "out"),
        ],
        env=os.environ | quiet, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert name in done.stdout and "acc_norm" in done.stdout
    expected = exam_of("piqa")
    (acc, *_) = expected.benchmark.measures(ours(model, [expected])["piqa"].items)
    (written,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(written.read_text())["results"][name]["acc,none"] == pytest.approx(acc.interval.estimate)


def test_it_runs_our_server(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    from windlass.serve.app import create_app
    from windlass.serve.engine.local import LocalModel
    from windlass.serve.run import ServerThread

    exam = exam_of("arc_easy", Asking(limit=8))
    name = export_task(exam, tmp_path)
    mine = item_logprobs(ours(model, [exam])["arc_easy"])
    local = LocalModel.load(model, policy="fp32")
    with ServerThread(create_app({"model": local}, {})) as server:
        found = theirs("windlass", f"{server.url}/v1", tmp_path, tmp_path / "out.json")
    local.close()
    replies = [[reply[0] for reply in one["replies"]] for one in found[name]["items"]]
    assert np.concatenate(replies) == pytest.approx(np.concatenate(mine), abs=2e-3)
