"""Kernels in C++ that PyTorch has no equal of, compiled on the machine they run on.

`library()` compiles the sources beside this file with the machine's own compiler, at most once for a version of them
and a kind of processor, and keeps the result in the user's cache folder. They know nothing of Python or PyTorch: plain
functions of pointers and sizes, called through `ctypes` (which lets other threads of Python run meanwhile), on as many
threads as PyTorch is set to when they are loaded. Where there is no compiler, or the processor lacks the instructions,
`Unavailable` says so, and callers do with PyTorch alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_HERE = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-pthread", "-shared", "-fPIC")
_INSTRUCTIONS = {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}

_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float


class Product(ctypes.Structure):
    """As in `kernels.h`. Whoever makes one keeps what it points to."""

    _fields_ = (("weights", _POINTER), ("bias", _POINTER), ("inputs", _LONG), ("outputs", _LONG), ("bits", _LONG))


class Sight(ctypes.Structure):
    """As in `kernels.h`. Whoever makes one keeps what it points to."""

    _fields_ = (
        *(("parts", _POINTER), ("count", _LONG), ("cos", _POINTER), ("sin", _POINTER), ("turned", _LONG)),
        *(
            ("by_place", _LONG),
            ("heads", _LONG),
            ("kv_heads", _LONG),
            ("dim", _LONG),
            ("window", _LONG),
            ("scale", _FLOAT),
        ),
    )


_VIEW = (_POINTER, _LONG, _LONG)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "windlass_threads": (_LONG,),
    "windlass_linear": (ctypes.POINTER(Product), _POINTER, _LONG, _POINTER, ctypes.c_bool),
    "windlass_attend": (ctypes.POINTER(Sight), _LONG, *3 * _VIEW, _POINTER),
    "windlass_rms_norm": (_POINTER, _LONG, _LONG, _LONG, _POINTER, _FLOAT, _POINTER),
    "windlass_silu_mul": (_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER),
    "windlass_hidden": (_POINTER, ctypes.POINTER(Sight), _POINTER, _LONG, _POINTER, _POINTER, _POINTER, _POINTER),
}


class Unavailable(Exception):
    """There are no native kernels here; the message says why."""


def library() -> ctypes.CDLL:
    """The compiled kernels. Raises `Unavailable`, each time for the same reason as the first time."""
    found = _library()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def unavailable() -> str | None:
    """Why there are no native kernels here."""
    found = _library()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | str:
    processor = _processor()
    if missing := sorted(_INSTRUCTIONS - processor):
        return f"this processor has no {', '.join(missing)}"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return "there is no C++ compiler (g++) to build the kernels with"
    try:
        loaded = ctypes.CDLL(str(_built(compiler, processor)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        return f"the kernels could not be built ({detail.strip().splitlines()[-1] if detail.strip() else error})"
    for name, arguments in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    loaded.windlass_threads(torch.get_num_threads())
    return loaded


def _processor() -> set[str]:
    """The instructions that the processor knows, as Linux lists them."""
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").is_file():
        return set()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()


def _built(compiler: str, processor: set[str]) -> Path:
    """The shared library for these sources, this compiler and this processor, built if it is not there yet."""
    sources = sorted(_HERE.glob("*.cpp"))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(" ".join((version, *_FLAGS, *sorted(processor))).encode())
    for path in (*sources, *sorted(_HERE.glob("*.h"))):
        digest.update(path.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "windlass"
    target = folder / f"kernels-{digest.hexdigest()[:24]}.so"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:  # whoever comes last replaces it by the same
            made = Path(temporary) / target.name
            command = [compiler, *_FLAGS, *map(str, sources), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            os.replace(made, target)
    return target
