"""Which parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from windlass.build.training.settings import OptimizerSettings
from windlass.build.training.sizes import Sizes
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.model import Model


@dataclass(frozen=True, slots=True)
class Group:
    parameters: list[nn.Parameter]
    rate: float
    """At its peak."""
    decay: float = 0.0
    matrices: bool = False
    """Maps inside the blocks, which Muon is for."""


def pretraining_groups(model: Model, sizes: Sizes, settings: OptimizerSettings) -> list[Group]:
    """Embedding, head and norms, matrices, and the queries, which may need smaller steps than the other matrices."""
    roles: dict[str, list[nn.Parameter]] = {role: [] for role in ("embedding", "rest", "matrix", "query")}
    for name, parameter in model.named_parameters():
        roles[_role(name, parameter)].append(parameter)
    tied_rate = sizes.head_rate if model.config.tied else sizes.embedding_rate
    decay, slow = settings.weight_decay, _query_rate(model.config)
    return [
        Group(roles["embedding"], tied_rate),
        Group(roles["rest"], sizes.head_rate),
        Group(roles["matrix"], sizes.matrix_rate, decay, matrices=True),
        Group(roles["query"], sizes.matrix_rate * slow, decay / slow, matrices=True),
    ]


def tuning_groups(named: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float) -> list[Group]:
    """One rate for all that is trained of a model that exists; the decay is for what multiplies: no norms or biases,
    and no tables, of which it would wear away rows that no example reads."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    matrices = [(name, parameter) for name, parameter in trained if parameter.ndim >= 2]
    return [
        Group([parameter for name, parameter in matrices if not _is_table(name)], rate, decay, matrices=True),
        Group([parameter for name, parameter in matrices if _is_table(name)], rate, matrices=True),
        Group([parameter for _, parameter in trained if parameter.ndim < 2], rate),
    ]


def _role(name: str, parameter: nn.Parameter) -> str:
    """Which group a parameter learns in."""
    if "blocks." in name and parameter.ndim >= 2:
        return "query" if name.endswith(".query.weight") else "matrix"
    return "embedding" if _is_table(name) else "rest"


def _is_table(name: str) -> bool:
    """Whether rows of the parameter are looked up."""
    return name.rpartition(".")[2] in ("embedding", "positions", "token_types")


def _query_rate(config: TransformerConfig) -> float:
    """Of the queries' matrices, as a share of the others': scores that are not divided by the root of a head's width
    (T5's) move so much more with the same step, and attention would stop at whatever it saw first. With this share and
    small queries to begin with, training is that of divided scores, step for step."""
    return 1.0 if config.qk_norm else config.head_dim**-0.5 / config.score_scale
