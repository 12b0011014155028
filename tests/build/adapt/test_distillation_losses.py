"""Distances of a student from its teacher: what they are at known places, and that torch's and TRL's are the same."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from windlass.build.adapt.objectives.distillation_losses import divergence

N, V = 6, 19


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(N, V, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_directions_are_those_of_torch(temperature):
    student, teacher = drawn()
    logq, logp = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    for kind, expected in (
        ("forward", F.kl_div(logq, logp, reduction="none", log_target=True).sum(-1)),
        ("reverse", F.kl_div(logp, logq, reduction="none", log_target=True).sum(-1)),
    ):
        torch.testing.assert_close(divergence(student, teacher, kind, 0.5, temperature), expected)


def test_known_places():
    student, teacher = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.25, 0.75], [0.5, 0.5]))
    forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(student, teacher, "forward", 0.5, 1.0).item() == pytest.approx(forward)
    assert divergence(teacher, student, "reverse", 0.5, 1.0).item() == pytest.approx(forward)
    ends = torch.tensor([[0.0, -200.0]]), torch.tensor([[-200.0, 0.0]])
    assert divergence(*ends, "jsd", 0.5, 1.0).item() == pytest.approx(math.log(2))  # its bound
    for kind in ("forward", "reverse", "jsd"):
        torch.testing.assert_close(divergence(teacher, teacher, kind, 0.3, 2.0), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_jsd_has_symmetry(beta, temperature):
    student, teacher = drawn(1)
    torch.testing.assert_close(
        divergence(student, teacher, "jsd", beta, temperature),
        divergence(teacher, student, "jsd", 1 - beta, temperature),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL's own
@pytest.mark.parametrize(("kind", "beta"), [("forward", 0.0), ("reverse", 1.0), ("jsd", 0.2), ("jsd", 0.7)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_trl_has_the_same_losses_and_gradients(kind, beta, temperature):
    gkd = pytest.importorskip("trl.experimental.gkd.gkd_trainer", reason="TRL is not installed")
    student, teacher = drawn(2)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(
        student[None], teacher[None], beta=beta, temperature=temperature, reduction="sum"
    )
    ours = divergence(student, teacher, kind, beta, temperature).sum()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))
