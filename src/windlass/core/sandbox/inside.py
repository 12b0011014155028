"""The inside of the sandbox: a script of its own, which knows nothing of windlass.

It reads jobs from standard input, a line of JSON each, and forks for each: the child locks itself in and works, while
this process, which runs nothing that a model wrote, waits for it, ends it where it must, and writes a line of JSON with
what it said: first whether it is locked in, then a line for what it found out.
"""

from __future__ import annotations

import abc  # noqa: F401 - what answers may import must be here before the door is shut
import array  # noqa: F401
import base64  # noqa: F401
import binascii  # noqa: F401
import bisect  # noqa: F401
import calendar  # noqa: F401
import cmath  # noqa: F401
import collections
import collections.abc  # noqa: F401
import contextlib  # noqa: F401
import copy  # noqa: F401
import ctypes
import dataclasses  # noqa: F401
import datetime  # noqa: F401
import decimal  # noqa: F401
import difflib  # noqa: F401
import enum  # noqa: F401
import fractions  # noqa: F401
import functools  # noqa: F401
import hashlib  # noqa: F401
import heapq  # noqa: F401
import inspect  # noqa: F401
import io  # noqa: F401
import itertools  # noqa: F401
import json
import keyword  # noqa: F401
import math  # noqa: F401
import numbers  # noqa: F401
import operator  # noqa: F401
import os
import platform
import pprint  # noqa: F401
import queue  # noqa: F401
import random  # noqa: F401
import re
import resource
import secrets  # noqa: F401
import signal
import statistics  # noqa: F401
import string  # noqa: F401
import struct  # noqa: F401
import sys
import tempfile
import textwrap  # noqa: F401
import time
import timeit  # noqa: F401
import traceback
import types  # noqa: F401
import typing  # noqa: F401
import unicodedata  # noqa: F401
import uuid  # noqa: F401
import zlib  # noqa: F401
from typing import Any, NoReturn

_ALLOWED = {
    "x86_64": (
        0xC000003E,
        "0 1 3 5 8 9 10 11 12 13 14 15 24 25 28 35 39 60 96 131 186 201 202 219 228 229 230 231 318",
    ),
    "aarch64": (
        0xC00000B7,
        "57 62 63 64 80 93 94 98 101 113 114 115 124 128 132 134 135 139 169 172 178 214 215 216 222 226 233 278",
    ),
}
"""By machine: its number in the kernel's audit.h, and the calls that are let through: read, write, close, fstat, lseek,
mmap, mprotect, munmap, mremap, madvise, brk, signals of one's own, sched_yield, nanosleep, getpid, gettid, exit, futex,
clocks, getrandom. Everything else is answered with EPERM."""

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("first", ctypes.POINTER(_Instruction))]


def limited(seconds: int, memory: int, output: int) -> None:
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 8),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):  # macOS knows no limit of addresses
            continue


def locked() -> bool:
    """Gives up every call of the kernel but those of `_ALLOWED`; False where that cannot be done."""
    if sys.platform != "linux" or platform.machine() not in _ALLOWED:
        return False
    machine, calls = _ALLOWED[platform.machine()]
    program = [
        _Instruction(_LOAD, 0, 0, 4),
        _Instruction(_EQUAL, 1, 0, machine),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, 0),
    ]
    for call in map(int, calls.split()):
        program += [_Instruction(_EQUAL, 0, 1, call), _Instruction(_RETURN, 0, 0, _ALLOW)]
    program.append(_Instruction(_RETURN, 0, 0, _REFUSE))
    first = (_Instruction * len(program))(*program)
    kernel = ctypes.CDLL(None)
    alone = kernel.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    return bool(alone and kernel.prctl(22, 2, ctypes.byref(_Program(len(program), first)), 0, 0) == 0)


def main() -> None:
    for line in sys.stdin.buffer:
        job = json.loads(line)
        with tempfile.TemporaryDirectory(prefix="windlass-sandbox-") as empty, tempfile.TemporaryFile() as said:
            # A file: the kernel limits its size, and the child never waits until somebody has read.
            child = os.fork()
            if child == 0:
                work(job, empty, said.fileno())
            ended(child, 2 * job["limits"]["seconds"])
            said.seek(0)
            answer = said.read(job["limits"]["output"] + 1).decode("utf-8", "replace")
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def ended(child: int, seconds: float) -> None:
    """Waits until the child has ended, but ends it after that many seconds, or when this process shall end."""

    def leave(*_: object) -> NoReturn:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, leave)
    until, nap, running = time.monotonic() + seconds, 0.0005, True
    try:
        while running and time.monotonic() < until:
            running = os.waitpid(child, os.WNOHANG)[0] == 0
            if running:
                time.sleep(nap)
                nap = min(nap * 1.5, 0.02)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for kill in (os.killpg, os.kill) if running else (os.killpg,):  # all that it may have started, and it
            try:
                kill(child, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # nobody is left
                continue
        if running:
            os.waitpid(child, 0)


def work(job: dict[str, Any], folder: str, said: int) -> NoReturn:
    """In the child: never returns, whatever happens."""
    out = 3
    try:
        os.setsid()
        os.chdir(folder)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nowhere, held = os.open(os.devnull, os.O_RDWR), os.dup(said)
        for standard in (0, 1, 2):  # what an answer prints goes nowhere, and it cannot read the jobs to come
            os.dup2(nowhere, standard)
        os.dup2(held, out)
        os.closerange(out + 1, 256)
    except BaseException:  # noqa: BLE001 - told by the parent, to whom nothing is said
        traceback.print_exc()
        os._exit(1)

    def say(line: str) -> None:
        os.write(out, line.encode("utf-8", "replace") + b"\n")

    try:
        limited(**job["limits"])
        say("locked" if locked() else "limited")
        {"calls": calls, "tests": tests, "patterns": patterns}[job["mode"]](job, say)
    finally:  # an answer that fails has said less, and that is all there is to tell
        os._exit(0)


def calls(job: dict[str, Any], say: Any) -> None:
    """What each call gives behind the code, as JSON; an empty line where it gives nothing that JSON knows."""
    space: dict[str, Any] = {"__name__": "answer"}
    exec(compile(job["code"], "<answer>", "exec"), space)
    for call in job["calls"]:
        try:
            found = json.dumps(eval(compile(call, "<case>", "eval"), space))
        except Exception:  # noqa: BLE001 - whatever it was, the call gave nothing
            found = ""
        say(found)


def tests(job: dict[str, Any], say: Any) -> None:
    """The password, when the tests behind the code have run to their end; else what came in between."""
    space: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(compile(job["code"], "<answer>", "exec"), space)
        exec(compile(job["tests"], "<tests>", "exec"), space)
    except BaseException as error:  # noqa: BLE001 - leaving is no way to pass
        say(f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
    else:
        say(job["password"])


def patterns(job: dict[str, Any], say: Any) -> None:
    """Whether each text matches its pattern from end to end."""
    for one in job["jobs"]:
        say(json.dumps(re.fullmatch(one["pattern"], one["text"], re.DOTALL) is not None))


if __name__ == "__main__":
    main()
