"""The chat format of tokenizers trained here: ChatML, with what the assistant says marked for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windlass.build.tokenizer.specials import Specials
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError

TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}"
    "{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The end of a turn is part of what the assistant says, or it would never learn to stop."""

_PROBE = "\u00a7\u00a7"
_SAMPLE = (
    {"role": "user", "content": "How heavy is the load?"},
    {"role": "assistant", "content": "As heavy as seven words."},
)


def read_template(path: Path) -> str:
    """A chat template from a file. Raises `InputError` when it is missing, broken, refuses a plain conversation, or
    does not mark what the assistant says, so that nothing could be learned from a conversation."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The chat template {path} cannot be read ({error}).", "Name a text file.") from error
    text, marks = ChatTemplate(source, {}, where=str(path)).render_marked(_SAMPLE)
    said = [text[start:end] for start, end in marks]
    if not any(_SAMPLE[1]["content"] in part for part in said):
        raise InputError(
            f"{path} does not mark what the assistant says.",
            "Put its turn between {% generation %} and {% endgeneration %}.",
        )
    return source


def chosen_template(chatml: bool, path: Path | None) -> str | None:
    """ChatML, the template of a file, or none. Raises `InputError` when both are asked for."""
    if chatml and path is not None:
        raise InputError("Both --chat and --chat-template are given.", "Give the one that should be used.")
    return CHATML if chatml else None if path is None else read_template(path)


def end_of_turn(template: ChatTemplate, tokenizer: Any, specials: Specials) -> int | None:
    """The special token that the template puts behind what an assistant says, where its answers end; None where it puts
    none there."""
    text = template.render([{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}])
    behind = text.rpartition(_PROBE)[2]
    # by its text: tokenizers can be set to read special tokens in a text as plain words
    found = [token for token in specials.ids if behind.startswith(tokenizer.id_to_token(token))]
    return max(found, key=lambda token: len(tokenizer.id_to_token(token)), default=None)
