"""Chat templates: a conversation becomes the one text that a model was trained to read, as transformers renders it.

A template is a Jinja program that comes with a model, so it runs in Jinja's sandbox. What stands between
`{% generation %}` and `{% endgeneration %}` is what the assistant says: the part that fine-tuning learns from.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from windlass.core.errors import InputError, MissingExtra, Unsupported

TEMPLATE_FILE = "chat_template.jinja"
_MARKS = "generation_marks"
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


class ChatTemplate:
    def __init__(self, source: str, special: Mapping[str, str], *, where: str) -> None:
        """`special`: what the template may call by name, such as `bos_token`. `where`: what errors call it.

        Raises `InputError` naming the line that is not valid Jinja.
        """
        self.source, self._special, self._where = source, special, where
        environment = _environment()
        from jinja2 import TemplateSyntaxError, meta

        try:
            self._template = environment.from_string(source)
            self.names = frozenset(meta.find_undeclared_variables(environment.parse(source)))
            """What the template asks for by name: `messages`, and perhaps `tools` or a switch of its own."""
        except TemplateSyntaxError as error:
            raise InputError(
                f"{where}: the chat template is broken at line {error.lineno}: {error.message}."
            ) from error

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The template of a model's folder, from `chat_template.jinja` or tokenizer_config.json, if there is one."""
        settings = _settings(folder / "tokenizer_config.json")
        path = folder / TEMPLATE_FILE
        source = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
        if source is None:
            return None
        if not isinstance(source, str):
            raise Unsupported(f"{folder}: several chat templates.", "Keep the one that shall be used.")
        return cls(source, special_tokens(folder), where=str(folder))

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False, **variables: Any
    ) -> str:
        """The text of a conversation. `variables`: what else the template shall know, such as `tools`.

        Raises `InputError` when the template refuses it.
        """
        return self.render_marked(messages, add_generation_prompt=add_generation_prompt, **variables)[0]

    def render_marked(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False, **variables: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and (start, end) of each part of it that the assistant says, in characters."""
        from jinja2 import TemplateError

        marks: list[tuple[int, int]] = []
        rendered: list[str] = []
        known = {
            **variables,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            _MARKS: (rendered, marks),
            **self._special,
        }
        try:
            # Block by block, so that a mark knows how much text stands before it.
            rendered.extend(self._template.generate(**known))
        except (TemplateError, TypeError) as error:
            raise InputError(f"The model's chat template refuses these messages: {error}.") from error
        return "".join(rendered), marks


def token_text(value: Any) -> str:
    """A special token in tokenizer_config.json is a string, or a table with its `content`, or null."""
    return str(value.get("content", "")) if isinstance(value, Mapping) else str(value or "")


def _environment() -> Any:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as missing:
        raise MissingExtra("A chat template", "serve") from missing

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().astimezone().strftime(form)
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own filter escapes for HTML; this one has the arguments that templates of transformers use."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation() -> Any:
    """The tag `generation`, as an extension of Jinja."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("mark", [nodes.ContextReference()])
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def mark(self, context: Any, caller: Any) -> str:
            text = str(caller())
            rendered, marks = context[_MARKS]
            start = sum(map(len, rendered))
            marks.append((start, start + len(text)))
            return text

    return Generation


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of a model's special tokens by name, such as `bos_token`; empty for those it has not."""
    settings = _settings(folder / "tokenizer_config.json")
    return {name: token_text(settings.get(name)) for name in _SPECIAL}


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error
    return value if isinstance(value, dict) else {}
