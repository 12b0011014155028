"""The documentation every Python carries: a real corpus on every machine, with no download.

- `topic`: the language reference, from `pydoc_data.topics`;
- `docstring`: one page per documented public name of the standard library and of the builtins;
- `source`: the source text of the standard library, for language models;
- `page`: windlass' own documentation.

The library's files are parsed, not imported. What exists differs a little between Python 3.11, 3.12 and 3.13.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.readers.headings import rst_sections
from windlass.core.readers.python_source import (
    Documented,
    docstring_document,
    documented,
    parse,
    source_document,
)
from windlass.core.readers.reading import read_file
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import NotText, canonical, decode

_SKIPPED_FOLDERS = {
    "test": "tests",
    "tests": "tests",
    "idle_test": "tests",
    "idlelib": "an application, not a library",
    "turtledemo": "an application, not a library",
    "lib2to3": "removed from Python",
    "distutils": "removed from Python",
    "msilib": "generated tables",
    "encodings": "generated tables",
    "pydoc_data": "generated tables",
    "site-packages": "not of the standard library",
    "dist-packages": "not of the standard library",
    "__phello__": "tests",
}
_SHORTEST_TOPIC = 120
_SKIPPED_PREFIXES = ("config-", "_sysconfigdata")
_GENERATED = frozenset({"_casefix.py", "entities.py", "stringprep.py", "keyword.py", "token.py", "pyexpat.py"})

_PUBLIC_NAME = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "posixpath": "os.path",
}
"""Modules whose public names everybody imports from elsewhere."""


@dataclass(frozen=True, slots=True)
class PythonDocs:
    """A `Source`: the documentation of the Python that runs this, and windlass' own."""

    name: str = f"the documentation and source of Python {platform.python_version()}"
    licence: str = "PSF-2.0 (Python's documentation and source), Apache-2.0 (windlass' own pages)"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        for part in (_own_pages, _topics, _builtins, _library):
            for document in part(report):
                report.documents += 1
                yield document
        if not report.documents:
            raise InputError(
                "This Python carries no documentation: neither topics nor source files were found.",
                "Name a folder of documents instead.",
            )


def _topics(report: ReadReport) -> Iterator[Document]:
    """The language reference. Many topics are printed once more inside larger ones: there the repetition is cut."""
    try:
        from pydoc_data import topics as module
    except ImportError:
        report.skip("pydoc_data.topics", "not installed with this Python")
        return
    texts = {f"python:topic/{name}": canonical(text) for name, text in module.topics.items()}
    report.files += 1
    report.bytes += sum(len(text.encode()) for text in texts.values())
    owners = {_bare(text): source for source, text in sorted(texts.items())}
    for source, text in sorted(texts.items()):
        text, cut = _without_repetitions(text, source, owners)
        for owner in cut:
            report.mend(source, "a section that is a topic of its own was cut", owner)
        if len(text) < _SHORTEST_TOPIC:
            report.skip(source, "consists of other topics")
            continue
        sections = rst_sections(text)
        title = sections[0].heading if sections else source.rpartition("/")[2]
        metadata = {"kind": "topic", "module": "", "cluster": source}
        yield Document(source, source, title, text, "rst", tuple(sections), metadata)


def _bare(text: str) -> str:
    """A section's text without the underlines, whose style says only how deep it stands."""
    return "\n".join(line for line in text.strip().split("\n") if line.strip("*=-~^"))


def _without_repetitions(text: str, source: str, owners: dict[str, str]) -> tuple[str, list[str]]:
    """`text` without the sections that are other topics, and the names of those."""
    if owners[_bare(text)] != source:
        return "", [owners[_bare(text)]]
    sections = rst_sections(text)
    kept, cut, done = [], [], 0
    for i, section in enumerate(sections):
        end = next((s.start for s in sections[i + 1 :] if s.level <= section.level), len(text))
        owner = owners.get(_bare(text[section.start : end]), source)
        if section.start >= done and owner != source:
            kept.append(text[done : section.start])
            cut.append(owner)
            done = end
    kept.append(text[done:])
    return canonical("".join(kept)), cut


def _builtins(report: ReadReport) -> Iterator[Document]:
    """`len`, `str.split`, ...: written in C, so described by the running interpreter, where they are loaded anyway."""
    report.files += 1
    for name, value in sorted(vars(builtins).items()):
        if name.startswith("_") or not callable(value) or value.__module__ not in ("builtins", "io", "_io"):
            continue
        members = [(name, value)]
        if isinstance(value, type):
            if value.__name__ != name:
                continue  # an alias such as IOError
            members += [(f"{name}.{key}", item) for key, item in sorted(vars(value).items()) if key[0] != "_"]
        for qualname, item in members:
            docstring = getattr(item, "__doc__", None)
            if not isinstance(docstring, str) or not docstring.strip():
                continue
            page = Documented(qualname, _builtin_signature(qualname, item), docstring)
            source = f"python:builtins.{qualname}"
            yield docstring_document(page, "builtins", source=source, cluster=f"python:builtins.{name}")


def _builtin_signature(qualname: str, item: object) -> str:
    prefix = "class " if isinstance(item, type) else ""
    if not callable(item):
        return qualname
    try:
        signature = inspect.signature(item)
    except (ValueError, TypeError):
        return f"{prefix}{qualname}"  # some builtins have none
    parameters = [p for i, p in enumerate(signature.parameters.values()) if i or p.name not in ("self", "type", "cls")]
    return f"{prefix}{qualname}{signature.replace(parameters=parameters)}"


def _library(report: ReadReport) -> Iterator[Document]:
    root = Path(os.__file__).parent
    exports: dict[str, _Exports] = {}
    seen: set[str] = set()
    for file in _library_files(root, root, report):
        relative = file.relative_to(root).as_posix()
        name = f"python:{relative}"
        try:
            data = file.read_bytes()
            text, note = decode(data)
            tree = parse(text := canonical(text))
        except (OSError, NotText, SyntaxError) as error:
            report.skip(name, "cannot be read", str(error))
            continue
        report.files += 1
        report.bytes += len(data)
        if note:
            report.mend(name, note)
        if not text:
            report.skip(name, "empty")
            continue
        module = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        yield source_document(text, tree, name, module)
        package = module.rpartition(".")[0]
        if file.name == "__init__.py":
            exports[module] = _Exports.of(tree)
        for item in documented(tree):
            public = _PUBLIC_NAME.get(module, module)
            if package in exports and exports[package].offers(module.rpartition(".")[2], item.qualname, tree):
                public = package
            source = f"python:{public}.{item.qualname}".rstrip(".")
            private = any(part.startswith("_") and part != "__future__" for part in public.split("."))
            if private or source in seen or (public != module and not item.qualname):
                continue
            seen.add(source)
            yield docstring_document(item, public, source=source, cluster=name)


@dataclass(frozen=True, slots=True)
class _Exports:
    """What a package's `__init__` imports from its own modules: people know `json.JSONEncoder`, not where it lives."""

    names: frozenset[tuple[str, str]]
    stars: frozenset[str]

    @classmethod
    def of(cls, tree: ast.Module) -> _Exports:
        found = [
            ((node.module or "").rpartition(".")[2], alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.asname in (None, alias.name)
        ]
        return cls(frozenset(found), frozenset(module for module, name in found if name == "*"))

    def offers(self, module: str, qualname: str, tree: ast.Module) -> bool:
        name = qualname.partition(".")[0]
        return (module, name) in self.names or (module in self.stars and name in _all(tree))


def _all(tree: ast.Module) -> set[str]:
    """The strings of `__all__ = [...]`, empty when there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return {c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    return set()


def _library_files(folder: Path, root: Path, report: ReadReport) -> Iterator[Path]:
    for path in sorted(p for p in folder.iterdir() if p.name != "__pycache__"):
        name = f"python:{path.relative_to(root).as_posix()}"
        if path.is_dir():
            reason = _SKIPPED_FOLDERS.get(path.name) or ("generated tables" if path.name[:7] == "config-" else "")
            if reason:
                report.skip(name, reason)
            else:
                yield from _library_files(path, root, report)
        elif path.suffix == ".py":
            if path.name.startswith(_SKIPPED_PREFIXES) or path.name in _GENERATED:
                report.skip(name, "generated tables")
            else:
                yield path


def _own_pages(report: ReadReport) -> Iterator[Document]:
    """README and docs of a checkout; of an installed windlass, its package's docstrings."""
    package = Path(__file__).parents[2]
    root = package.parent.parent
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]
    if package.parent.name == "src" and pages[0].is_file():
        for page in filter(Path.is_file, pages):
            yield from read_file(page, f"windlass:{page.relative_to(root).as_posix()}", report)
        return
    for file in sorted(package.rglob("*.py")):
        relative = file.relative_to(package.parent).as_posix()
        module = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        tree = parse(canonical(file.read_text(encoding="utf-8")))
        for item in documented(tree):
            source = f"windlass:{module}.{item.qualname}".rstrip(".")
            yield docstring_document(item, module, source=source, cluster=f"windlass:{relative}")
