"""An exam as a task of lm-evaluation-harness: the same prompts and choices, from files of this folder.

    lm_eval --model hf --model_args pretrained=FOLDER --include_path OUT --tasks windlass_piqa

So a score can be checked by others' code. Its configuration is YAML, of which JSON is a part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windlass.core.errors import Unsupported
from windlass.core.files import write_json
from windlass.evaluate.harness.answer import Answer
from windlass.evaluate.harness.choice import Choice, options, right_one, right_ones
from windlass.evaluate.harness.continuation import Continuation
from windlass.evaluate.harness.items import Exam, Item
from windlass.evaluate.harness.perplexity import Perplexity
from windlass.evaluate.harness.requests import Continue, Read, Write
from windlass.evaluate.harness.schema import Schema

PREFIX = "windlass_"
_METRICS = {"acc": "acc", "acc_norm": "acc_norm", "acc_bytes": "acc_bytes", "acc_mutual_info": "acc_mutual_info"}


def export_task(exam: Exam, folder: Path) -> str:
    """Writes NAME.yaml and NAME.jsonl; returns the task's name. Raises `Unsupported` for what goes through a chat
    template, which the harness writes itself."""
    if exam.asking.chat:
        raise Unsupported(
            "Conversations are not exported.", "Export without --chat; lm_eval has --apply_chat_template."
        )
    name = PREFIX + exam.name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": item.id, **_row(exam, item)} for item in exam.items]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "num_fewshot": 0,  # examples stand in the prompts
        "target_delimiter": "",
        "metadata": {"version": 1, "dataset": exam.dataset},
    }
    write_json(folder / f"{name}.yaml", {**common, **_settings(exam)})
    return name


def _row(exam: Exam, item: Item) -> dict[str, Any]:
    benchmark, first = exam.benchmark, item.requests[0]
    if isinstance(benchmark, Choice):
        assert isinstance(first, Continue)
        choices = options(benchmark.choices, item.row, "choices")
        right = right_ones(benchmark.gold, item.row, choices)
        if len(right) > 1:
            raise Unsupported(f"'{exam.name}' has several right choices.", "lm_eval knows one as data, more as code.")
        return {"query": first.context, "choices": choices, "gold": right[0]}
    if isinstance(benchmark, Schema):
        contexts = options(benchmark.contexts, item.row, "contexts")
        gold = right_one(benchmark.gold, item.row, contexts)
        asked = [one for one in item.requests if isinstance(one, Continue)]
        return {"contexts": [one.context for one in asked], "target": asked[0].text, "gold": gold}
    if isinstance(benchmark, Continuation):
        assert isinstance(first, Continue)
        return {"query": first.context, "target": first.text}
    if isinstance(first, Read):
        return {"text": first.text}
    assert isinstance(first, Write)
    return {"query": first.prompt, "target": ""}


def _settings(exam: Exam) -> Mapping[str, Any]:
    benchmark = exam.benchmark
    if isinstance(benchmark, Choice):
        metrics = [_METRICS[name] for name in benchmark.metrics if name in _METRICS]
        kind = {"output_type": "multiple_choice", "doc_to_text": "query", "doc_to_choice": "choices"}
        lead = exam.items[0].requests[0]
        assert isinstance(lead, Continue)
        choices = options(benchmark.choices, exam.items[0].row, "choices")
        delimiter = lead.text.removesuffix(choices[0])
        return {**kind, "doc_to_target": "gold", "target_delimiter": delimiter, "metric_list": _listed(metrics)}
    if isinstance(benchmark, Schema):
        kind = {"output_type": "multiple_choice", "doc_to_text": "gold", "doc_to_choice": "contexts"}
        return {**kind, "doc_to_target": "target", "metric_list": _listed(["acc"])}
    if isinstance(benchmark, Continuation):
        kind = {"output_type": "loglikelihood", "doc_to_text": "query", "doc_to_target": "target"}
        return {**kind, "metric_list": _listed(["acc", "perplexity"])}
    if isinstance(benchmark, Perplexity):
        metrics = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
        kind = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
        return {**kind, "metric_list": _listed(metrics)}
    assert isinstance(benchmark, Answer)
    generation = {"until": list(benchmark.stop), "max_gen_toks": benchmark.max_tokens, "do_sample": False}
    kind = {"output_type": "generate_until", "doc_to_text": "query", "doc_to_target": "target"}
    return {**kind, "generation_kwargs": generation, "metric_list": _listed(["bypass"])}


def _listed(metrics: list[str]) -> list[dict[str, str]]:
    return [{"metric": name} for name in metrics]
