"""The formats of tool calls that are known, and how a chat template shows which of them its model was trained on.

hermes           <tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>              Hermes, Qwen 2.5 and 3
llama            {"name": "f", "parameters": {…}}                                       Llama 3.1, behind <|python_tag|>
mistral          [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]                       Mistral until 2024
mistral_args     [TOOL_CALLS]f[ARGS]{…}                                                 Mistral since 2025
kimi             <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}        Kimi K2
deepseek         <｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>             DeepSeek V3.1
deepseek_fenced  the same with `function`, the name, and the JSON in a Markdown fence   DeepSeek V3, R1
pythonic         [f(a=1), g(b="x")]                                                     Llama 3.2 and 4
qwen_xml         <function=f>\\n<parameter=a>\\n1\\n</parameter>\\n</function>              Qwen3-Coder
glm              <tool_call>f\\n<arg_key>a</arg_key>\\n<arg_value>1</arg_value>\\n…        GLM 4.5, 4.6
minimax          <invoke name="f">\\n<parameter name="a">1</parameter>\\n</invoke>        MiniMax M2

Harmony (gpt-oss), which writes everything in channels, is in `harmony`. Readers are strict: what is not a call with a
JSON object of arguments is `Malformed`.
"""

from __future__ import annotations

import re

from windlass.serve.engine.dialect.calls import Format
from windlass.serve.engine.dialect.json_calls import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    HERMES,
    KIMI,
    LLAMA,
    MISTRAL,
    MISTRAL_ARGS,
)
from windlass.serve.engine.dialect.python_calls import PYTHONIC
from windlass.serve.engine.dialect.tagged_calls import GLM, MINIMAX, QWEN_XML

FORMATS = (
    HERMES, LLAMA, MISTRAL, MISTRAL_ARGS, KIMI, DEEPSEEK, DEEPSEEK_FENCED, PYTHONIC, QWEN_XML, GLM, MINIMAX,
)  # fmt: skip


def find_format(template: str) -> Format | None:
    """The format that a chat template teaches its model; None where none is known."""
    if KIMI.begin in template:
        return KIMI
    if DEEPSEEK.begin in template:
        return DEEPSEEK_FENCED if "```json" in template else DEEPSEEK
    if MINIMAX.begin in template:
        return MINIMAX
    if "<tool_call>" in template:
        return QWEN_XML if "<function=" in template else GLM if "<arg_key>" in template else HERMES
    if "[TOOL_CALLS]" in template:
        return MISTRAL_ARGS if "[ARGS]" in template else MISTRAL
    if re.search(r"func_name1\(|\[func1\(", template):
        return PYTHONIC
    if '"parameters"' in template and re.search(r"python_tag|ipython", template):
        return LLAMA
    return None
