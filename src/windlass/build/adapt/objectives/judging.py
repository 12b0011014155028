"""An encoder with a head on its way through a tuning: begun, given an adapter, stored as transformers reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import adapter_of, attach_adapter, merge
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import TaskType, save_adapter, stored_kind
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.settings import RunSettings
from windlass.build.transformer.classifier import Classifier, Kind, Task
from windlass.build.transformer.classifier_files import (
    begun_classifier,
    classifier_links,
    family_of,
    has_head,
    head_for,
    load_classifier,
    load_head,
    save_classifier,
    save_head,
)
from windlass.build.transformer.hf import CONFIG
from windlass.core.errors import InputError

_TASKS: dict[Task, TaskType] = {"texts": "SEQ_CLS", "tokens": "TOKEN_CLS", "spans": "QUESTION_ANS"}


@dataclass(frozen=True, slots=True)
class Judging:
    model: Classifier
    opened: Opened
    lines: list[str]
    """What was found out, for the person who watches."""
    kept: bool
    """Whether the head is one that was trained before, of the base or of the adapter."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """For `config.json`."""

    def save(self, folder: Path) -> None:
        """As `Prepared.save`. An adapter's folder has the `config.json` too, which names the labels."""
        opened, specials, family = self.opened, self.opened.specials, family_of(self.opened.base)
        tokens = {"bos": specials.bos, "eos": specials.eos, "pad": specials.pad}
        if stored_kind(opened.settings) == "adapter":
            task = _TASKS[self.model.head.task]
            save_adapter(self.model, opened, folder, task, classifier_links(opened.base, self.model.head))
            save_head(self.model, folder, family, **tokens, more=self.more)
        else:
            save_classifier(self._merged(), folder, family, **tokens, more=self.more)

    def _merged(self) -> Classifier:
        """One model of base, adapter and head, in float32."""
        if all(parameter.requires_grad for parameter in self.model.parameters()):
            return self.model
        fresh, _ = begun_classifier(self.opened.base, self.model.head)
        attach_adapter(fresh, adapter_of(self.model))
        merge(fresh)
        return fresh


def begun(
    opened: Opened, labels: Sequence[str], kind: Kind, task: Task = "texts", more: Mapping[str, Any] | None = None
) -> Judging:
    """The base with a head for the labels, and the adapter that the settings ask for. A base that judges by the very
    labels keeps its head.

    Raises `InputError` for a base that is no encoder, for an adapter of another base or with other labels, and for
    settings that such a training cannot follow.
    """
    settings, base = opened.settings, opened.base
    plain = uncompiled(settings.run)
    head = head_for(base, labels, kind, task)
    own = has_head(base, task) and load_head(base, task) == head
    if own:
        model, lines = load_classifier(base, task), [f"going on with the head of {opened.base_name}"]
    else:
        model, left = begun_classifier(base, head, settings.run.seed)
        lines = [f"a new head; left out of the base: {', '.join(left)}"] if left else []
    if opened.adapter is not None and (opened.adapter / CONFIG).is_file():
        theirs = load_head(opened.adapter, task).labels
        if theirs != head.labels:
            raise InputError(
                f"The adapter {opened.adapter} knows the labels {', '.join(theirs)}, but the data has "
                f"{', '.join(head.labels)}.",
                "Set objective.labels to those of the adapter, in their order.",
            )
    attached(model.train(), opened, classifier_links(base, head))
    prepare_blocks(model, plain, settings.schedule)
    return Judging(model, opened, lines, own or opened.adapter is not None, more or {})


def uncompiled(run: RunSettings) -> RunSettings:
    """The settings for a training on whole texts. Raises `InputError` where compiling is demanded."""
    if run.compile == "yes":
        raise InputError(
            "run.compile is 'yes', but no two rows of whole texts are of one length, and each would be compiled anew.",
            "Leave it out.",
        )
    return replace(run, compile="no")
