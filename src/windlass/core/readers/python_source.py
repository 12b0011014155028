"""Python files without running them: the source as text, and each documented public name as a document of its own.

The module is parsed, never imported: importing runs code. A docstring document is the signature, a blank line and the
docstring, so that it reads like a reference page and its first sentence is easy to find.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from windlass.core.documents import Document, Section
from windlass.core.readers.headings import rst_sections
from windlass.core.readers.text import canonical

_LONGEST_DEFAULT = 60
_WIDTH = 88
_Callable = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Callable | ast.ClassDef
_OPEN_BLOCKS = (ast.If, ast.Try, ast.With)


@dataclass(frozen=True, slots=True)
class Documented:
    """A module (`qualname` is ''), class, function, method or property that has a docstring."""

    qualname: str
    signature: str
    """Without the module's name. For a module: ''."""
    docstring: str


def parse(text: str) -> ast.Module:
    """Parses canonical source. Raises `SyntaxError` (or `ValueError`, `RecursionError`) when it is not Python 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        return ast.parse(text)


def source_document(text: str, tree: ast.Module | None, source: str, module: str) -> Document:
    """The file itself; without sections when it could not be parsed (`tree` is None)."""
    sections = () if tree is None else tuple(_source_sections(text, tree))
    metadata = {"kind": "source", "module": module, "cluster": source}
    return Document(source, source, source.partition(":")[2] or source, text, "python", sections, metadata)


def _source_sections(text: str, tree: ast.Module) -> list[Section]:
    """One section per class and function of `tree` (methods one level deeper), at its `def` line."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return [Section(starts[node.lineno - 1], depth, node.name) for depth, node in _definitions(tree.body, 1)]


def _definitions(body: list[ast.stmt], depth: int) -> Iterator[tuple[int, _Definition]]:
    for node in body:
        if isinstance(node, _Definition):
            yield depth, node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, depth + 1)
        elif isinstance(node, _OPEN_BLOCKS):
            for part in _blocks(node):
                yield from _definitions(part, depth)


def _blocks(node: ast.If | ast.Try | ast.With) -> Iterator[list[ast.stmt]]:
    """The statement lists of a block whose definitions belong to the module or class around it."""
    yield node.body
    if isinstance(node, ast.If):
        yield node.orelse
    elif isinstance(node, ast.Try):
        yield from (handler.body for handler in node.handlers)
        yield node.orelse


def documented(tree: ast.Module) -> Iterator[Documented]:
    """The module and its public names that have docstrings, in the order of the file; the first of a name counts."""
    if docstring := ast.get_docstring(tree):
        yield Documented("", "", docstring)
    yield from _members(tree.body, "", set())


def _members(body: list[ast.stmt], prefix: str, seen: set[str]) -> Iterator[Documented]:
    for node in body:
        if isinstance(node, _OPEN_BLOCKS):
            for part in _blocks(node):
                yield from _members(part, prefix, seen)
        if not isinstance(node, _Definition) or node.name.startswith("_"):
            continue
        qualname = prefix + node.name
        if qualname in seen:
            continue
        docstring = ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef):
            init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
            if init is not None and docstring:
                docstring = "\n\n".join(filter(None, (docstring, ast.get_docstring(init))))
            signature = f"class {qualname}{_arguments(init, method=True) if init else ''}"
        else:
            signature = _signature(node, qualname, method=bool(prefix))
        if docstring:
            seen.add(qualname)
            yield Documented(qualname, signature, docstring)
        if isinstance(node, ast.ClassDef):
            yield from _members(node.body, f"{qualname}.", seen)


def _signature(node: _Callable, qualname: str, *, method: bool) -> str:
    decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    if decorators & {"property", "cached_property"}:
        return qualname
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = _arguments(node, method=method and "staticmethod" not in decorators)
    return f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}{qualname}{arguments}{returns}"


def _arguments(node: _Callable, *, method: bool) -> str:
    """The parameter list as source, without `self` or `cls`, long defaults shortened."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + [*a.defaults]
    parts = []
    for i, (argument, default) in enumerate(zip(positional, defaults)):
        if not (method and i == 0):
            parts.append(_parameter(argument, default))
        if a.posonlyargs and i == len(a.posonlyargs) - 1 and parts:
            parts.append("/")
    if a.vararg:
        parts.append(f"*{_parameter(a.vararg, None)}")
    elif a.kwonlyargs:
        parts.append("*")
    parts += [_parameter(argument, default) for argument, default in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg:
        parts.append(f"**{_parameter(a.kwarg, None)}")
    return f"({', '.join(parts)})"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + (f": {ast.unparse(argument.annotation)}" if argument.annotation else "")
    if default is None:
        return text
    value = ast.unparse(default)
    if len(value) > _LONGEST_DEFAULT:
        value = "..."
    return f"{text} = {value}" if argument.annotation else f"{text}={value}"


def docstring_document(item: Documented, module: str, *, source: str, cluster: str) -> Document:
    """The reference page of one documented name. `metadata.body` is the offset where its docstring begins.

    Names of the module `builtins` are written without it, as in programs.
    """
    prefix = "" if module == "builtins" else f"{module}."
    name = f"{prefix}{item.qualname}" if item.qualname else module
    head = module
    if item.qualname:
        keyword = next((word for word in ("class ", "async ") if item.signature.startswith(word)), "")
        head = f"{keyword}{prefix}{item.signature.removeprefix(keyword)}"
    head = canonical(
        textwrap.fill(head, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    )
    body = canonical(inspect.cleandoc(item.docstring))
    offset = len(head) + 2
    sections = [Section(0, 1, name), *(_shift(s, offset) for s in rst_sections(body, base=1))]
    metadata = {"kind": "docstring", "module": module, "qualname": item.qualname, "cluster": cluster, "body": offset}
    return Document(source, source, name, f"{head}\n\n{body}", "python", tuple(sections), metadata)


def _shift(section: Section, offset: int) -> Section:
    return Section(section.start + offset, section.level, section.heading)
