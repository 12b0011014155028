"""Other people's clients and a fuzzer against a real server process with a real, tiny model.

They live in an environment of their own, which `make clients` builds; `WINDLASS_CLIENTS` may name another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLIENTS = Path(os.environ.get("WINDLASS_CLIENTS", HERE.parents[1] / ".venv-clients"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CLIENTS / "bin/python").exists(), reason=f"no clients in {CLIENTS}: run `make clients`"),
]
pytest.importorskip("uvicorn")
pytest.importorskip("torch")

from tokenizers import Tokenizer  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    program = [sys.executable, str(HERE / "server.py"), str(folder)]
    with (
        open(folder / "err", "w") as err,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    said = (folder / "err").read_text()
    assert "Traceback" not in said, said


def run(*command: str, folder: Path) -> None:
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "unused", "HF_HOME": str(folder)}
    quiet |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"


@pytest.mark.parametrize("client", ["openai", "instructor", "langchain", "llama_index", "litellm"])
def test_a_client(url: str, client: str, tmp_path: Path) -> None:
    run(str(CLIENTS / "bin/python"), str(HERE / "clients.py"), client, url, str(tmp_path), folder=tmp_path)


def test_lm_eval_scores_as_transformers_does(url: str, folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run(str(CLIENTS / "bin/python"), str(HERE / "clients.py"), "lm_eval", url, str(tmp_path), folder=tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tiny/tokenizer.json"))

    def score(before: str, after: str) -> float:
        ids = tokenizer.encode(before + after, add_special_tokens=False).ids
        start = len(tokenizer.encode(before, add_special_tokens=False).ids)
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids)))

    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    wanted = [[score(one["q"], choice) for choice in one["choices"]] for one in questions]
    found = json.loads((tmp_path / "scores.json").read_text())
    assert all(a == pytest.approx(b, abs=1e-3) for row, other in zip(found, wanted) for a, b in zip(row, other))


def test_the_openapi_document_is_true(url: str, tmp_path: Path) -> None:
    """Thousands of requests made from the document, right and wrong ones: the answers are what it says."""
    run(
        str(CLIENTS / "bin/st"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--no-color", folder=tmp_path,
    )  # fmt: skip
