"""Which file holds what, by its name: pages, Python, programs in other languages, documents that are not text."""

from __future__ import annotations

from pathlib import PurePath

from windlass.core.documents import DocumentFormat

PAGES: dict[str, DocumentFormat] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".txt": "text",
    ".text": "text",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".py": "python",
    ".pyi": "python",
}
PROGRAMS: dict[str, str] = {
    suffix: language
    for language, suffixes in {
        "Ada": ".adb .ads",
        "Assembly": ".asm .s",
        "C": ".c .h",
        "C#": ".cs",
        "C++": ".cc .cpp .cxx .hh .hpp .hxx",
        "CUDA": ".cu .cuh",
        "Clojure": ".clj .cljs",
        "Common Lisp": ".lisp .lsp",
        "Cython": ".pyx .pxd",
        "Dart": ".dart",
        "Elixir": ".ex .exs",
        "Elm": ".elm",
        "Erlang": ".erl .hrl",
        "F#": ".fs .fsx",
        "Fortran": ".f .f90 .f95",
        "Go": ".go",
        "Groovy": ".groovy .gradle",
        "Haskell": ".hs",
        "Java": ".java",
        "JavaScript": ".js .jsx .mjs .cjs",
        "Julia": ".jl",
        "Kotlin": ".kt .kts",
        "Lua": ".lua",
        "Nim": ".nim",
        "OCaml": ".ml .mli",
        "Pascal": ".pas .pp",
        "Perl": ".pl .pm",
        "PHP": ".php",
        "PowerShell": ".ps1",
        "Protocol Buffers": ".proto",
        "R": ".r",
        "Ruby": ".rb",
        "Rust": ".rs",
        "Scala": ".scala",
        "Scheme": ".scm",
        "Shell": ".sh .bash .zsh",
        "Solidity": ".sol",
        "SQL": ".sql",
        "Swift": ".swift",
        "Tcl": ".tcl",
        "TypeScript": ".ts .tsx",
        "Verilog": ".v .sv",
        "VHDL": ".vhd .vhdl",
        "Zig": ".zig",
    }.items()
    for suffix in suffixes.split()
}
"""Suffix -> programming language."""

DOCUMENTS = (".pdf", ".docx", ".pptx", ".xlsx", ".eml", ".mbox")
"""Files that hold text, among other things."""

_BARE_NAMES = frozenset(
    {"README", "LICENSE", "COPYING", "NEWS", "CHANGES", "CHANGELOG", "AUTHORS", "INSTALL", "NOTICE"}
)


def format_of(name: str) -> DocumentFormat | None:
    """The format of a file that is one document (for Python: its source and its docstrings); None when unknown."""
    path = PurePath(name)
    suffix = path.suffix.lower()
    if suffix in PAGES:
        return PAGES[suffix]
    if suffix in PROGRAMS:
        return "code"
    return "text" if path.name in _BARE_NAMES else None


def programming_language(name: str) -> str:
    """Of a file whose format is `code`."""
    return PROGRAMS[PurePath(name).suffix.lower()]
