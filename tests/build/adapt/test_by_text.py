"""Training passes as they are computed without a compiler: what they leave out changes nothing of what is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from windlass.build.adapt.peft import lora
from windlass.build.adapt.peft.attaching import attach
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.objectives import Loss, arithmetic, causal, texts_of
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise

CONFIG = TransformerConfig(vocab_size=37, context=32, hidden=16, layers=2, heads=4, kv_heads=2, head_dim=4, ffn=24)


def adapted(**changes: object) -> Decoder:
    model = Decoder(replace(CONFIG, **changes))  # type: ignore[arg-type]
    initialise(model, 0)
    attach(model, AdapterSettings(rank=3), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def packed_batch() -> Batch:
    """Two rows with texts of 5, 3, 5 and 9 tokens; the second has padding in its middle and behind."""
    documents = torch.tensor([[0] * 5 + [1] * 3 + [2] * 5 + [-1] * 3, [0] * 9 + [-1] * 7])
    tokens = torch.randint(37, documents.shape, generator=torch.Generator().manual_seed(2))
    targets = torch.where((documents < 0) | (tokens % 3 == 0), IGNORE, tokens.roll(-1, 1))
    return Batch(tokens, targets, documents)


def gradients(model: nn.Module, loss: Loss) -> dict[str, torch.Tensor]:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss.sum, list(named.values())), strict=True))


def test_texts_are_found_in_rows_shortest_first() -> None:
    batch = packed_batch()
    assert batch.documents_BT is not None
    order, lengths = texts_of(batch.documents_BT)
    assert lengths == [3, 5, 5, 9]
    assert order.tolist() == [*range(5, 8), *range(5), *range(8, 13), *range(16, 25)]


@pytest.mark.parametrize("changes", [{}, {"window": 4}, {"position": "learned"}], ids=str)
@pytest.mark.parametrize("chunk", [None, 4])
def test_texts_by_themselves_learn_what_rows_with_a_mask_learn(changes: dict[str, object], chunk: int | None) -> None:
    model, batch, found = adapted(**changes), packed_batch(), []
    for by_text in (False, True):
        loss = causal(model, batch, arithmetic(model, by_text=by_text, chunk=chunk))
        found.append((loss.sum.detach(), gradients(model, loss)))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert len(found[0][1]) == 28
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], msg=name, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_thin_matrices_have_the_gradients_that_autograd_finds(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = adapted(qkv_bias=biased, mlp_bias=biased), packed_batch()
    used = []
    monkeypatch.setattr(lora, "beside", lambda x, maps, real=lora.beside: (used.append(len(maps)), real(x, maps))[1])
    found = []
    for by_hand in (True, False):
        monkeypatch.setattr(lora, "by_hand", lambda by_hand=by_hand: by_hand)
        loss = causal(model, batch, arithmetic(model, by_text=True))
        found.append((loss.sum.detach(), gradients(model, loss)))
    assert used == [3, 1, 2, 1] * 2, "query, key and value at once; gate and up too"
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], msg=name, rtol=1e-4, atol=1e-3)


def test_a_step_keeps_no_copies_of_the_frozen_weights() -> None:
    """Joined weights of a base of 7 billion would be as large as itself."""
    model, batch = adapted(), packed_batch()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        causal(model, batch, arithmetic(model, by_text=True))
    widths = {shape for shape in kept if len(shape) == 2 and shape[0] in (16, 24, 32, 48) and shape[1] in (16, 24)}
    assert not widths, widths
