"""The card of a tuned model: base, data, objective, figures before and after, how to use it, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from windlass.build.adapt.objectives.preparing import Prepared
from windlass.build.adapt.opening import Opened
from windlass.core.artifacts import Artifact


def model_card(
    opened: Opened, prepared: Prepared, steps: int, loss: float, before: Mapping[str, float], after: Mapping[str, float]
) -> str:
    """Markdown. Holds nothing that differs between two equal runs, so that equal runs make the same artifact."""
    settings = opened.settings
    adapter = settings.adapter
    what = "all weights were trained" if adapter.kind == "none" else f"{adapter.kind} of rank {adapter.rank}"
    trained = sum(one.numel() for one in prepared.model.parameters() if one.requires_grad)
    every = sum(one.numel() for one in prepared.model.parameters())
    figures = "\n".join(
        f"| {name} | {_figure(before.get(name))} | {_figure(value)} |" for name, value in sorted(after.items())
    )
    facts = "\n".join(f"| {name.replace('_', ' ')} | {_fact(value)} |" for name, value in prepared.facts.items())
    return f"""# {settings.run.name}

{_base(opened)}, tuned by `{settings.objective.kind}` ({what}) with windlass.

| | |
|---|---|
| base | {_named(opened.base_artifact, Path(settings.model.base).name)} |
| licence of the base | {_licence(opened.base_artifact)} |
| data | {_named(opened.dataset, opened.file.name)} |
| licence of the data | {_licence(opened.dataset)} |
| trained | {trained:,} of {every:,} parameters ({trained / every:.2%}) |
| training | {steps:,} steps, peak rate {settings.rate:g}, {settings.run.precision}, seed {settings.run.seed} |
{facts}
| last training loss | {loss:.4f} |

## Held-out figures

Measured on {settings.data.heldout:.0%} of the examples, which were not trained on.

| | before | after |
|---|---:|---:|
{figures}

## Use

{_use(opened, prepared)}

## Limits

It learned one job from these examples and knows nothing that neither they nor its base hold. The figures are for
examples like these; others were not measured. Whatever was wrong or one-sided in base or data is in the model too. Not
for decisions about anyone.

## Energy and cost

The record of the run that made it (`windlass runs`) has the time of the processor, `core_seconds`, and an estimate
from it, `watt_hours`, at an assumed {settings.run.watts:g} W for a core at work.
"""


def _base(opened: Opened) -> str:
    return Path(opened.settings.model.base).name if opened.base_artifact is None else opened.base_artifact.ref


def _named(artifact: Artifact | None, otherwise: str) -> str:
    return f"{otherwise}, not an artifact" if artifact is None else f"{artifact.ref} `{artifact.digest[:12]}`"


def _licence(artifact: Artifact | None) -> str:
    found = None if artifact is None else artifact.card.get("licence")
    return str(found) if found else "not stated"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _fact(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _use(opened: Opened, prepared: Prepared) -> str:
    settings = opened.settings
    name, adapter = settings.run.name, settings.adapter
    if prepared.kind == "model":
        if settings.objective.kind in _UNSERVED:
            return "transformers reads the folder; no endpoint of `windlass serve` is for it."
        return f"`windlass serve {name}`; other tools read the folder in Hugging Face layout."
    if adapter.kind in ("prompt", "prefix"):
        return "PEFT reads it beside its base. It is what stands before a text, which `windlass serve` does not add."
    base = "" if opened.base_artifact is not None else f" --base {settings.model.base}"
    whole = f"`windlass adapters merge {name} --name {name}-whole{base}`"
    tables = adapter.also or adapter.tokens or settings.model.new_tokens  # which the engine cannot put beside a base
    if opened.config.causal and not tables and settings.objective.kind != "reward":
        served = settings.model.base if opened.base_artifact is None else opened.base_artifact.ref
        return (
            f"Beside its base: `windlass serve {served} --lora {name}={name}`. As one model with it: {whole}. PEFT "
            "reads it too."
        )
    then = "which transformers reads" if settings.objective.kind in _UNSERVED else f"then `windlass serve {name}-whole`"
    return f"As one model with its base: {whole}, {then}. PEFT reads it too."


_UNSERVED = ("tag", "extract", "reward")
