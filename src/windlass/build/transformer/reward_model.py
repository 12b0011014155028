"""A decoder that scores: how good the answer is that a text ends with, as one number.

    model = load_reward_model(folder)            # LlamaForSequenceClassification and the like, with one label
    scores_D = model(tokens_T, lengths)          # whole texts, one behind the other

The score is read off the last token, as everything before it is seen from there. That is how transformers'
`AutoModelForSequenceClassification` has it, whose folders are read and written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import Link, export, fill, same
from windlass.build.transformer.hf import CONFIG, WEIGHTS, from_hf, read_config, tensors_of, to_hf
from windlass.build.transformer.linear import Linear
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, write_json

_SCORE = "score.weight"
_KIND = "ForSequenceClassification"
_SPELLED = {"gpt2": f"GPT2{_KIND}", "gemma3_text": f"Gemma3Text{_KIND}"}


class RewardModel(nn.Module):
    __call__: Callable[..., Tensor]

    def __init__(self, decoder: Decoder) -> None:
        """Around a decoder, whose head is left behind; the score's weights are empty."""
        super().__init__()
        decoder.head = decoder.head_bias = None
        decoder.config = replace(decoder.config, tied=True, head_bias=False)
        self.decoder = decoder
        self.score = Linear(decoder.config.hidden, 1)

    @property
    def config(self) -> TransformerConfig:
        return self.decoder.config

    def forward(self, tokens_T: Tensor, lengths: Sequence[int], *, dtype: torch.dtype | None = None) -> Tensor:
        """Scores of the texts, (D), float32. A text ends with its last token: padding is no part of it."""
        x_TC = self.decoder.hidden_of_texts(tokens_T, lengths, dtype=dtype)
        ends_D = torch.tensor(lengths, device=x_TC.device).cumsum(0) - 1
        return self.score(x_TC[ends_D].float())[:, 0]


def reward_links(links: Sequence[Link]) -> list[Link]:
    """How the tensors are called in a folder, from how those of the decoder are called."""
    own = [link for link in links if not link.ours[0].startswith("head")]
    return [*(replace(link, ours=tuple(f"decoder.{name}" for name in link.ours)) for link in own), same(_SCORE, _SCORE)]


def save_reward_model(
    model: RewardModel, folder: Path, *, bos: int | None = None, eos: int | None = None, pad: int
) -> None:
    """Writes `config.json` and `model.safetensors` (float32), as transformers reads them. `pad` fills the rest of a
    row: transformers looks for the last token that is another."""
    values = to_hf(model.config, bos=bos, eos=eos, pad=pad)
    family = values["model_type"]
    plain = FAMILIES[family].ARCHITECTURE.removesuffix("ForCausalLM") + _KIND
    label = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, {**values, "architectures": [_SPELLED.get(family, plain)], **label})
    state = {name: tensor.float() for name, tensor in model.state_dict().items()}
    tensors = export(state, reward_links(list(FAMILIES[family].links(model.config))))
    with disk_errors(folder):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_reward_model(folder: Path) -> RewardModel:
    """The model in a Hugging Face folder, in float32 and ready for inference.

    Raises `InputError` for a folder that holds no decoder with one score, naming the field or the tensor.
    """
    values, where = read_config(folder), str(folder / CONFIG)
    names, labels = values.get("architectures") or [""], values.get("id2label") or {}
    family = FAMILIES.get(str(values.get("model_type")))
    if family is None or not str(names[0]).endswith(_KIND) or len(labels) != 1:
        raise InputError(
            f"{where}: architectures is {names} with {len(labels)} labels, which is no reward model.",
            "Give the folder of a decoder for sequence classification with one label.",
        )
    config = replace(from_hf(values | {"architectures": [family.ARCHITECTURE]}, where), tied=True)
    if not config.causal or config.decoder_layers:
        raise InputError(f"{where}: model_type '{values['model_type']}' is no decoder.", "Give a reward model.")

    def renamed(name: str) -> str | None:
        return name if name == _SCORE else family.renamed(name, config)

    with torch.device("meta"):
        model = RewardModel(Decoder(config))
    model.to_empty(device="cpu")
    links = reward_links(list(family.links(config)))
    with tensors_of(folder, renamed) as tensors:
        fill(model.state_dict(), links, tensors, str(folder))
    return model.eval()
