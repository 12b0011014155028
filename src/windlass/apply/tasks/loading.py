"""Tasks by where they are written: `file.py`, `file.py:name`, `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.signature import Signature
from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.values import AudioPart, FilePart, ImagePart

AnyTask = Task[..., Any]


def load_task(where: str) -> AnyTask:
    """Raises `NotFound` for what is not there, `InputError` for a file that cannot be run, or holds several tasks."""
    place, colon, name = where.rpartition(":") if ":" in where else (where, "", "")
    found = tasks_in(place)
    if colon:
        if name not in found:
            raise NotFound(f"{place} has no task '{name}'.", f"It has: {', '.join(found) or 'none'}.")
        return found[name]
    if len(found) != 1:
        raise InputError(
            f"{place} holds {len(found)} tasks, not one.",
            f"Write {place}:NAME; it has {', '.join(found)}." if found else "Put @task above a function.",
        )
    return next(iter(found.values()))


def load_function(where: str) -> Callable[..., Any]:
    """A function by `file.py:name` or `package.module:name`. Raises as `load_task`."""
    place, _, name = where.rpartition(":")
    found: Callable[..., Any] | None = getattr(_module(place), name, None) if place else None
    if not callable(found):
        raise NotFound(f"{where} is no function.", "Write FILE.py:NAME.")
    return found


def tasks_in(place: str) -> dict[str, AnyTask]:
    """The tasks of a file or a module by name. It is run for that, as by `import`."""
    module = _module(place)
    return {name: one for name, one in vars(module).items() if isinstance(one, Task) and not name.startswith("_")}


def inputs_of(task: AnyTask, given: list[str]) -> dict[str, Any]:
    """Inputs as the command line has them: `name=value`, or the text alone where the task takes or needs one input.

    A text is taken as it is; other types are read as JSON; media are read from the file of that path. Raises
    `InputError` naming the input.
    """
    signature = task.signature
    names = list(signature.inputs)
    needed = [name for name, one in signature.python.parameters.items() if one.default is one.empty]
    only = names if len(names) == 1 else needed
    values: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or name not in signature.inputs:
            if len(only) != 1:
                takes = f"It takes {', '.join(names)}: write {names[0]}=... and so on." if names else "It takes none."
                raise InputError(f"'{one.strip()[:80]}' names no input of {task!r}.", takes)
            name, text = only[0], one
        values[name] = _value(signature, name, text)
    try:
        return signature.bound((), values)
    except TypeError as error:
        raise InputError(f"{error}.", "Give it by --input NAME=VALUE.") from error


def _value(signature: Signature, name: str, text: str) -> Any:
    kind = signature.inputs[name]
    if kind in (ImagePart, AudioPart, FilePart):
        import mimetypes

        path = Path(text)
        media = mimetypes.guess_type(path.name)[0]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"The input '{name}' cannot be read from {text}: {error.strerror}.") from error
        return kind(data=data, **({"media_type": media} if media else {}))
    if kind in (str, Any):
        return text
    import json

    try:
        plain = json.loads(text)
    except ValueError:
        plain = text  # a word, where the type has words
    try:
        return Shape[Any](kind, where=f"the input '{name}'").value(plain)
    except Unfit as unfit:
        raise InputError(f"The input '{name}' is not of its type: {unfit.of_one}.") from unfit


def _module(place: str) -> ModuleType:
    path = Path(place)
    try:
        if path.suffix != ".py":
            sys.path.insert(0, str(Path.cwd()))
            try:
                return importlib.import_module(place)
            finally:
                sys.path.pop(0)
        if not path.is_file():
            raise NotFound(f"There is no file {place}.", "Name a Python file with tasks, from this folder on.")
        # A name of its own, so that pydantic finds the module's types, and that two files of one name do not meet.
        name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except ModuleNotFoundError as error:
        raise NotFound(
            f"{place}: {error}.", "Write file.py:NAME or module:NAME, and install what it imports."
        ) from error
    except WindlassError:
        raise
    except Exception as error:  # whatever the file's own code raises
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        line = f", line {lines[-1]}," if lines else ""
        raise InputError(
            f"{place}{line} cannot be run: {type(error).__name__}: {error}.", "Mend it, then try again."
        ) from error
