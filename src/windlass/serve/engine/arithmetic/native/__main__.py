"""Compiles the kernels beforehand, for where there is no compiler.

    python -m windlass.serve.engine.arithmetic.native FOLDER

FOLDER then goes, with the rest of the installation, to machines on which `WINDLASS_KERNELS` names it. The kernels are
of use to processors of x86-64 with AVX-512 VNNI; on others they are left alone.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from windlass.serve.engine.arithmetic.native import Unavailable, build


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("Name the folder: python -m windlass.serve.engine.arithmetic.native FOLDER", file=sys.stderr)
        return 2
    if platform.machine() != "x86_64":  # not an error: an image for such a machine does without
        print(f"There are no kernels for {platform.machine()}; PyTorch's own operators will be used.")
        return 0
    try:
        print(build(Path(arguments[0])))
    except Unavailable as reason:
        print(f"No kernels: {reason}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
