"""One engine in a process of its own, for `bench.serve`: reads one task a line, writes one answer a line.

    python _serve_contestants.py NAME FOLDER THREADS
    {"batch": 8, "prompt": 64, "write": 48}     ->  {"decode": tokens a second, all sequences together}
    {"prefill": 512}                            ->  {"prefill": tokens a second}
    {"batch": 16, ..., "whole": true}           ->  {"whole": tokens a second with the reading of the prompts, "cpu":
                                                     seconds of processors that it took}, of ours

Runs under the Python of the engine's own environment; of windlass only where that is the engine.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Ids = list[int]
_SPARE = 64
"""Tokens that every sequence of ours could write beyond those that are timed: none ends while others are."""
VOCABULARY = 32_000
WARM = 8
"""Tokens of the shorter of two runs, whose difference is the decoding alone."""


class Contestant(Protocol):
    def decode(self, prompts: Sequence[Ids], write: int) -> float:
        """Tokens a second of all sequences together, once all prompts are read."""
        ...

    def prefill(self, prompt: Ids) -> float:
        """Seconds until the first token."""
        ...


class Timed:
    """Engines that only run as a whole: decoding is what a longer run takes more than a shorter one."""

    def run(self, prompts: Sequence[Ids], write: int) -> None:
        raise NotImplementedError

    def decode(self, prompts: Sequence[Ids], write: int) -> float:
        others = [prompt[::-1] for prompt in prompts]  # else a prefix cache would spare the second run their reading
        seconds = self._seconds(prompts, WARM + write) - self._seconds(others, WARM)
        return len(prompts) * write / max(seconds, 1e-9)

    def prefill(self, prompt: Ids) -> float:
        return self._seconds([prompt], 1)

    def _seconds(self, prompts: Sequence[Ids], write: int) -> float:
        start = time.perf_counter()
        self.run(prompts, write)
        return time.perf_counter() - start


class Windlass:
    """The engine as `windlass serve` runs it, without a server around it."""

    def __init__(self, folder: Path, threads: int, policy: str, *, reproducible: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        from windlass.build.transformer.hf import load_decoder
        from windlass.serve.engine.arithmetic.attention import kernel_here
        from windlass.serve.engine.arithmetic.linears import prepare
        from windlass.serve.engine.engine import Engine
        from windlass.serve.engine.request import Generation
        from windlass.serve.engine.sampling.settings import Sampling

        self._generation, self._greedy = Generation, Sampling(temperature=0.0)
        decoder = load_decoder(folder)
        report = prepare(decoder, policy)
        if report.policy != policy:
            raise SystemExit(f"windlass {policy}: {report}")
        self._engine = Engine(
            decoder, max_batch=16, kernel=kernel_here(), kv_tokens=8192, share=False, reproducible=reproducible
        )

    def decode(self, prompts: Sequence[Ids], write: int) -> float:
        running: list[Any] = []
        # All are there before the first step. What some have written before the last prompt is read does not count.
        self._engine.turn(lambda: running.extend(self._submit(prompt, write + _SPARE) for prompt in prompts))
        last = running[-1]
        next(iter(last))
        start, before = time.perf_counter(), self._engine.stats().written_tokens
        for _ in zip(range(write), last, strict=False):
            pass
        written = self._engine.stats().written_tokens - before
        seconds = time.perf_counter() - start
        for one in running:
            one.cancel()
            one.wait()
        return written / seconds

    def whole(self, prompts: Sequence[Ids], write: int) -> float:
        """Tokens a second from the request to the last token, as a client of a server would count."""
        start = time.perf_counter()
        running = [self._submit(prompt, write) for prompt in prompts]
        written = sum(1 for one in running for _ in one)
        return written / (time.perf_counter() - start)

    def prefill(self, prompt: Ids) -> float:
        start = time.perf_counter()
        next(iter(self._submit(prompt, 1)))
        return time.perf_counter() - start

    def _submit(self, prompt: Ids, write: int) -> Any:
        return self._engine.submit(self._generation(prompt=prompt, max_tokens=write, sampling=self._greedy))


class LlamaCpp:
    """llama.cpp through its C API: all sequences in one batch, one context for each number of them."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp
        import numpy as np

        self._c, self._np, self._threads = llama_cpp, np, threads
        llama_cpp.llama_backend_init()
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        self._silent = silent  # must outlive the library's use of it
        llama_cpp.llama_log_set(silent, None)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {path}")

    def decode(self, prompts: Sequence[Ids], write: int) -> float:
        context = self._context(len(prompts), len(prompts[0]) + write + 1)
        chosen = self._read(context, prompts, 0)
        start = time.perf_counter()
        for step in range(write):
            chosen = self._read(context, [[token] for token in chosen], len(prompts[0]) + step)
        rate = len(prompts) * write / (time.perf_counter() - start)
        self._c.llama_free(context)
        return rate

    def prefill(self, prompt: Ids) -> float:
        context = self._context(1, len(prompt) + 8)
        start = time.perf_counter()
        self._read(context, [prompt], 0)
        seconds = time.perf_counter() - start
        self._c.llama_free(context)
        return seconds

    def _context(self, sequences: int, length: int) -> Any:
        settings = self._c.llama_context_default_params()
        settings.n_ctx = sequences * (-(-length // 256) * 256)
        settings.n_batch = settings.n_ubatch = max(512, sequences * length)
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = self._threads
        return self._c.llama_init_from_model(self._model, settings)

    def _read(self, context: Any, rows: Sequence[Ids], start: int) -> Ids:
        """The likeliest token after each row."""
        count = sum(map(len, rows))
        batch = self._c.llama_batch_init(count, 0, 1)
        at, ends = 0, []
        for sequence, row in enumerate(rows):
            for place, token in enumerate(row):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, start + place, 1
                batch.seq_id[at][0], batch.logits[at] = sequence, place == len(row) - 1
                at += 1
            ends.append(at - 1)
        batch.n_tokens = count
        if self._c.llama_decode(context, batch):
            raise SystemExit("llama.cpp cannot decode this batch")
        logits = (self._c.llama_get_logits_ith(context, end) for end in ends)
        chosen = [int(self._np.ctypeslib.as_array(row, (VOCABULARY,)).argmax()) for row in logits]
        self._c.llama_batch_free(batch)
        return chosen


class OpenVINO(Timed):
    """By either of its ways to attend: over pages (its default, with a prefix cache), or over one tensor, which its
    documentation calls stateful."""

    def __init__(self, path: Path, threads: int, attention: str) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        self._np, self._ov, self._genai = np, openvino, openvino_genai
        self._pipe = openvino_genai.LLMPipeline(
            str(path), "CPU", INFERENCE_NUM_THREADS=threads, ATTENTION_BACKEND=attention
        )

    def run(self, prompts: Sequence[Ids], write: int) -> None:
        ids = self._np.array(prompts, dtype=self._np.int64)
        inputs = self._genai.TokenizedInputs(self._ov.Tensor(ids), self._ov.Tensor(self._np.ones_like(ids)))
        settings = self._genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = write
        settings.ignore_eos, settings.do_sample, settings.apply_chat_template = True, False, False
        found = self._pipe.generate(inputs, settings)
        lengths = {len(row) for row in found.tokens}
        if len(found.tokens) != len(prompts) or lengths != {write}:
            raise SystemExit(f"OpenVINO wrote {lengths} tokens for {len(found.tokens)} prompts, not {write}")


class Transformers(Timed):
    """`generate`, or continuous batching."""

    def __init__(self, folder: Path, threads: int, dtype: str, continuous: bool) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        self._torch, self._continuous = torch, continuous
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self._settings = transformers.GenerationConfig

    def run(self, prompts: Sequence[Ids], write: int) -> None:
        settings = self._settings(
            max_new_tokens=write, min_new_tokens=write, do_sample=False, pad_token_id=0, eos_token_id=-1, use_cache=True
        )
        if self._continuous:
            found = self._model.generate_batch(list(prompts), generation_config=settings, progress_bar=False)
            lengths = {len(one.generated_tokens) for one in found.values()}
            if len(found) != len(prompts) or lengths != {write}:
                raise SystemExit(f"continuous batching wrote {lengths} tokens for {len(found)} prompts, not {write}")
            return
        ids = self._torch.tensor(prompts)
        with self._torch.inference_mode():
            out = self._model.generate(ids, attention_mask=self._torch.ones_like(ids), generation_config=settings)
        if out.shape[1] != ids.shape[1] + write:
            raise SystemExit(f"transformers wrote {out.shape[1] - ids.shape[1]} tokens, not {write}")


def contestant(name: str, folder: Path, threads: int) -> Contestant:
    match name.split(", "):
        case ["windlass int8" | "windlass bf16" | "windlass int4" as ours]:
            return Windlass(folder, threads, ours.split()[1])
        case ["windlass int8", "reproducible"]:
            return Windlass(folder, threads, "int8", reproducible=True)
        case ["llama.cpp F16" | "llama.cpp Q8_0" as llama]:
            return LlamaCpp(folder / f"{llama.split()[1].lower()}.gguf", threads)
        case ["OpenVINO"]:
            return OpenVINO(folder / "q8_0.gguf", threads, "PA")
        case ["OpenVINO", "stateful"]:
            return OpenVINO(folder / "q8_0.gguf", threads, "SDPA")
        case ["transformers", "float32" | "bfloat16" as dtype, *how]:
            return Transformers(folder, threads, dtype, how == ["continuous"])
    raise SystemExit(f"no such contestant: {name}")


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")  # libraries print what they like to the other one
    os.dup2(2, 1)
    one = contestant(name, folder, threads)
    draw = random.Random(0)

    def prompt(length: int) -> Ids:
        return [draw.randrange(1000, VOCABULARY) for _ in range(length)]

    print(json.dumps({"ready": name}), file=out, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if "prefill" in task:
            answer = {"prefill": task["prefill"] / one.prefill(prompt(task["prefill"]))}
        else:
            prompts = [prompt(task["prompt"]) for _ in range(task["batch"])]
            if "whole" in task:
                assert isinstance(one, Windlass)
                used = time.process_time()
                answer = {"whole": one.whole(prompts, task["write"]), "cpu": time.process_time() - used}
            else:
                answer = {"decode": one.decode(prompts, task["write"])}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
