"""The scorer against the plain way: every sequence read whole by itself, by our decoder and by transformers."""

from __future__ import annotations

import math
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.build.transformer.attention import STRIPE
from windlass.build.transformer.config import Experts, RopeScaling, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError
from windlass.serve.engine.scoring.scorer import Scorer, even_parts, rolling_windows
from windlass.serve.engine.scoring.trie import Trie

CONTEXT = 24
PLAIN = TransformerConfig(vocab_size=31, hidden=16, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=20, context=CONTEXT)
LONG = RopeScaling("longrope", 3.0, 9, short_factors=(1.0, 1.1, 1.2, 2.0), long_factors=(1.5, 2.0, 3.0, 4.0))
CONFIGS = {
    "plain": PLAIN,
    "window": replace(PLAIN, window=3, pattern="LG", attention_cap=2.0),
    "longrope": replace(PLAIN, rope_scaling=LONG),
    "alibi": replace(PLAIN, position="alibi", window=5, logit_cap=3.0),
    "relative": replace(PLAIN, position="relative", relative_buckets=8, relative_distance=12),
    "learned": replace(PLAIN, position="learned", norm="layer", tied=True, head_bias=True),
    "experts": replace(PLAIN, experts=Experts(4, 2, 12), embedding_scale=4.0),
}


def random_decoder(config: TransformerConfig) -> Decoder:
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model.eval()


MODELS = {name: random_decoder(config) for name, config in CONFIGS.items()}


@torch.inference_mode()
def expected(logits_TV: torch.Tensor, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """From the logits of a whole pass over both but the last token."""
    logits_TV = logits_TV[len(context) - 1 :].float()
    chosen = logits_TV.log_softmax(-1)[range(len(continuation)), continuation]
    return float(chosen.double().sum()), logits_TV.argmax(-1).tolist() == continuation


@torch.inference_mode()
def alone(model: Decoder, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    return expected(model(torch.tensor([[*context, *continuation][:-1]]))[0], context, continuation)


def assert_same(found: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> None:
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=CONTEXT // 2)  # few tokens, so that beginnings are shared


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=12, deadline=None)
@given(calls=st.lists(st.lists(st.tuples(tokens, tokens), max_size=6), min_size=1, max_size=3), chunk=st.integers(1, 9))
def test_any_sharing_and_any_chunk(name: str, calls: list, chunk: int) -> None:
    scorer = Scorer(MODELS[name], chunk=chunk)
    for pairs in calls:  # what one call leaves behind must not show in the next
        assert_same(scorer.loglikelihood(pairs), [alone(MODELS[name], *pair) for pair in pairs])


@pytest.mark.parametrize("name", CONFIGS)
def test_many_branches_in_one_pass(name: str) -> None:
    """More than a stripe of queries, each stripe of which looks at its own keys only."""
    draw = random.Random(name)

    def some() -> list[int]:
        return [draw.randrange(4) for _ in range(draw.randint(2, CONTEXT // 2))]

    contexts = [some() for _ in range(20)]
    pairs = [(context, some()) for context in contexts for _ in range(3)]
    scorer = Scorer(MODELS[name])
    assert len(Trie.of([[*context, *continuation] for context, continuation in pairs])) > 3 * STRIPE
    for part in (pairs[:50], pairs[40:]):
        assert_same(scorer.loglikelihood(part), [alone(MODELS[name], *pair) for pair in part])


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 9))
def test_passes_are_as_few_and_as_even_as_they_can_be(nodes: list[int], most: int) -> None:
    parts = even_parts(np.array(nodes, dtype=np.int64), most)
    assert [node for part in parts for node in part] == nodes
    assert len(parts) == math.ceil(len(nodes) / most)
    assert not parts or max(map(len, parts)) <= min(most, min(map(len, parts)) + 1)


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8))
def test_a_trie_holds_its_sequences_and_each_beginning_once(sequences: list[list[int]]) -> None:
    trie = Trie.of(sequences)
    assert [trie.token[path].tolist() for path in trie.paths] == sequences
    assert len(trie) == len({tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)})
    ancestors = {node: {node} | (ancestors_of(trie, node)) for node in range(len(trie))}
    for m in range(len(trie)):
        assert {n for n in range(len(trie)) if n <= m < trie.end[n]} == ancestors[m]
        assert len(ancestors[m]) == trie.depth[m] + 1


def ancestors_of(trie: Trie, node: int) -> set[int]:
    found = set()
    while (node := int(trie.parent[node])) >= 0:
        found.add(node)
    return found


SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
FAMILIES = {
    "Llama": SHAPE,
    "Qwen3": SHAPE | {"head_dim": 16},
    "Gemma2": SHAPE | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "Mixtral": SHAPE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "GPT2": {
        "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_full_recompute_of_transformers(family: str, tmp_path) -> None:
    torch.manual_seed(0)
    head = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    theirs = getattr(transformers, head)(getattr(transformers, f"{family}Config")(**FAMILIES[family])).eval()
    theirs.save_pretrained(tmp_path)
    rng = random.Random(0)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(61) for _ in range(rng.randint(least, most))]

    shots = some(30, 30)
    questions = [shots + some(2, 12) for _ in range(3)]
    pairs = [(question, some(1, 5)) for question in questions for _ in range(4)]
    with torch.inference_mode():
        for question in questions:  # what greedy decoding writes must be told to be greedy
            written = question[:]
            for _ in range(3):
                written.append(int(theirs(torch.tensor([written])).logits[0, -1].argmax()))
            pairs.append((question, written[len(question) :]))
        plain = [expected(theirs(torch.tensor([[*c, *x][:-1]])).logits[0], c, x) for c, x in pairs]
    assert sum(greedy for _, greedy in plain) >= 3
    assert_same(Scorer(load_model(tmp_path), chunk=16).loglikelihood(pairs), plain)


def test_what_is_shared_is_read_once_within_a_call_and_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = MODELS["plain"], []
    original = Decoder.hidden_of_branches
    monkeypatch.setattr(Decoder, "hidden_of_branches", lambda *a: read.append(len(a[1])) or original(*a))
    scorer = Scorer(model)
    shots = list(range(10))
    scorer.loglikelihood([([*shots, q, q + 1], [c]) for q in (10, 11) for c in (1, 2, 3)])
    assert sum(read) == 10 + 2 + 2  # choices of one token are never read
    read.clear()
    scorer.loglikelihood([([*shots, 20], [1, 2]), ([*shots, 20], [1, 3])])
    assert sum(read) == 1 + 1
    read.clear()
    scorer.prompts([[*shots, 20, 1]], top=3)  # logits of what was read are made again, without reading
    assert sum(read) == 0


def test_prompts_tell_each_token_its_alternatives_and_what_comes_next() -> None:
    model = MODELS["window"]
    scorer = Scorer(model, chunk=5)
    prompts = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4], [1, 2, 3, 9, 9], [1]]
    for top, ahead in ((1, False), (4, True), (2, False), (4, False), (5, True)):
        for prompt, found in zip(prompts, scorer.prompts(prompts, top=top, ahead=ahead), strict=True):
            with torch.inference_mode():
                logprobs_TV = model(torch.tensor([prompt]))[0].log_softmax(-1)
            best = logprobs_TV.topk(top)
            n = len(prompt) - (not ahead)
            following = prompt[1:] + ([int(best.indices[-1, 0])] if ahead else [])
            assert found.top_tokens.tolist() == best.indices[:n].tolist()
            assert np.allclose(found.top_logprobs, best.values[:n].numpy(), atol=1e-5)
            assert found.logprobs == pytest.approx(logprobs_TV[range(n), following].tolist(), abs=1e-5)


@given(st.integers(0, 40), st.integers(1, 12))
def test_windows_score_each_token_once_with_as_much_before_it_as_fits(count: int, length: int) -> None:
    text = list(range(100, 100 + count))
    windows = list(rolling_windows(text, 7, length))
    assert [token for _, continuation in windows for token in continuation] == text
    whole = [7, *text]
    for number, (context, continuation) in enumerate(windows):
        first = whole.index(continuation[0])
        assert whole[first - len(context) : first] == list(context)
        assert len(context) + len(continuation) <= length + 1
        assert number == 0 or len(context) + len(continuation) == length + 1


def test_rolling_is_the_sum_over_the_windows() -> None:
    model = MODELS["plain"]
    rng = random.Random(1)
    texts = [[rng.randrange(31) for _ in range(n)] for n in (1, 5, CONTEXT, CONTEXT + 1, 3 * CONTEXT + 5)]
    plain = [sum(alone(model, list(c), list(x))[0] for c, x in rolling_windows(t, 30, CONTEXT)) for t in texts]
    assert Scorer(model).rolling(texts, start=30) == pytest.approx(plain, abs=1e-4)
    assert Scorer(model).rolling([[]], start=30) == [0]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([([1], [2]), ([], [1])], "Pair 1: the context is empty"),
        ([([1], [])], "Pair 0: the continuation is empty"),
        ([([1], [31])], "Pair 0 holds token 31, but the vocabulary has 31"),
        ([([-1], [3])], "Pair 0 holds token -1"),
        ([([1] * CONTEXT, [2, 2])], f"Pair 0: {CONTEXT + 1} tokens must be read .* at most {CONTEXT}"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(pairs: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scorer(MODELS["plain"]).loglikelihood(pairs)


def test_the_window_may_be_full() -> None:
    pair = ([1] * CONTEXT, [2])
    assert_same(Scorer(MODELS["plain"], chunk=7).loglikelihood([pair]), [alone(MODELS["plain"], *pair)])


def test_a_call_that_breaks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = MODELS["plain"], []
    pairs = [([1, 2, 3, 4, 5, 6], [7, 8]), ([1, 2, 3, 4, 9], [7, 8])]

    def turn(step) -> None:
        passes.append(step)
        if len(passes) == 4:
            raise KeyboardInterrupt
        step()

    scorer = Scorer(model, chunk=2, turn=turn)
    with pytest.raises(KeyboardInterrupt):
        scorer.loglikelihood(pairs)
    assert_same(scorer.loglikelihood(pairs), [alone(model, *pair) for pair in pairs])
    assert len(passes) > 6


def test_several_threads_may_ask_at_once() -> None:
    model = MODELS["plain"]
    scorer = Scorer(model, chunk=4)
    jobs = [[([1, 2, 3, n], [4, n]), ([1, 2, n], [5])] for n in range(8)]
    found: dict[int, list[tuple[float, bool]]] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: scorer.loglikelihood(jobs[n])})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, job in enumerate(jobs):
        assert_same(found[n], [alone(model, *pair) for pair in job])
        assert not any(math.isnan(value) for value, _ in found[n])
