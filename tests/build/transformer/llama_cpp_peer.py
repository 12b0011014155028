"""Run by the interpreter that has llama-cpp-python: what it computes and how it cuts texts, for the tests to compare.

    python llama_cpp_peer.py ask.json answer.npz

ask.json: {"models": [paths], "context": number, "tokens": [numbers], "texts": [texts]}. The answer holds, for model i,
`logits{i}` (one row for each token) and, where it has a tokenizer, the tokens of text j as `text{i}_{j}`, and as
`whole{i}_{j}` with what begins a text.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

ask = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
found = {}
for number, path in enumerate(ask["models"]):
    model = llama_cpp.Llama(
        path,
        n_ctx=ask["context"],
        n_batch=64,
        logits_all=True,
        n_threads=1,
        n_threads_batch=1,
        verbose=False,
        type_k=0,
        type_v=0,
    )
    model.eval(ask["tokens"])
    found[f"logits{number}"] = np.array(model.scores[: len(ask["tokens"])])
    for at, text in enumerate(ask["texts"] if model.metadata.get("tokenizer.ggml.model") != "none" else []):
        found[f"text{number}_{at}"] = model.tokenize(text.encode(), add_bos=False, special=False)
        found[f"whole{number}_{at}"] = model.tokenize(text.encode(), add_bos=True, special=False)
    model.close()
np.savez(sys.argv[2], **found)
