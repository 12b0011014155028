"""Kernels in C++ that PyTorch has no equal of, compiled once for all processors that have the instructions.

`library()` compiles the sources beside this file with the machine's own compiler, at most once for a version of them,
and keeps the result in the user's cache folder, or in the one that the environment variable `WINDLASS_KERNELS` names.
Where there is no compiler, in a container for example, it can be put there beforehand: see `__main__`.

They know nothing of Python or PyTorch: plain functions of pointers and sizes, called through `ctypes` (which lets other
threads of Python run meanwhile), on as many threads as PyTorch is set to when they are loaded. Where there is neither
compiler nor library, or the processor lacks the instructions, `Unavailable` says so, and callers do with PyTorch alone.
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
# For a level of processors rather than the one at hand (which gains nothing: docs/lab.md), so that a library may be
# compiled on one machine and used on another; it is loaded only where all that the compiler may use is there.
_FLAGS = ("-O3", "-march=x86-64-v4", "-mavx512vnni", "-std=c++20", "-pthread", "-shared", "-fPIC")
_INSTRUCTIONS = {
    *("avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"),  # v3 of the levels that the psABI of x86-64 defines
    *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"),  # v4, and one more
}

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
    "windlass_largest": (_POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER),
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
    if missing := sorted(_INSTRUCTIONS - _processor()):
        return f"this processor has no {', '.join(missing)}"
    try:
        loaded = ctypes.CDLL(str(build(_folder())))
    except Unavailable as reason:
        return str(reason)
    except OSError as error:
        return f"the kernels could not be loaded ({error})"
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


def build(folder: Path) -> Path:
    """The shared library of these sources in `folder`, compiled if it is not there yet. Raises `Unavailable`.

    The processor of this machine need not be one that can run it.
    """
    sources = sorted(_HERE.glob("*.cpp"))
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for path in (*sources, *sorted(_HERE.glob("*.h"))):
        digest.update(path.read_bytes())
    target = folder / f"kernels-{digest.hexdigest()[:24]}.so"
    if target.is_file():
        return target
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise Unavailable(f"there is no C++ compiler (g++) to build the kernels with, and they are not in {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:  # whoever comes last replaces it by the same
            made = Path(temporary) / target.name
            command = [compiler, *_FLAGS, *map(str, sources), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            os.replace(made, target)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip()
        raise Unavailable(f"the kernels could not be built ({detail.splitlines()[-1] if detail else error})") from error
    return target


def _folder() -> Path:
    if given := os.environ.get("WINDLASS_KERNELS"):
        return Path(given)
    # `expanduser`, not `Path.home`: a user without a home, as in containers, is no reason to stop
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "windlass"
