"""What does a typed task add to a call? `@windlass.task` against Instructor, pydantic-ai and LiteLLM's client.

A provider on loopback, in a process of its own on one core, answers every chat at once and with the same deal; each
contender runs in a process of its own on the other core, all its threads together. All ask for the same pydantic model
by the provider's structured output. Ours also traces each call to SQLite (it is on the disk when the clock stops),
prices it and keeps it to its window. Contenders take turns; what counts is the time of all calls of a turn by their
number, and of the turns the median.

  wire   the same bytes through a socket: what the provider, the kernel and Python's sockets take of each call
  bare   httpx2, the HTTP client that windlass uses: `client.post(url, json=…)`, then `json.loads`

"over wire" is a contender's time less that of the wire in the same turn. `ratio` is ours over the lightest peer's, the
worse of callers that wait and of event loops. `vs_bare` is our whole time over that of `bare`. `ratio_cpu` and
`vs_bare_cpu` are the same of processor time, which other work on the machine moves less.

Then 1,000 calls at once on one event loop, to a provider that thinks for a quarter of a second: how long all of them
took, how many were under way at once, and by how much the process grew at its peak, in the first burst and in the last.

    python -m bench.tasks [--rounds 5] [--calls 400] [--peers PYTHON]

`--peers`, or WINDLASS_PEERS: a Python with what `bench/tasks-peers.txt` names; `make peers` builds one in
`.venv-tasks-peers`, where it is looked for by default. Nobody phones home.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-tasks-peers/bin/python"
AT_ONCE, THINKS_S = 1000, 0.25
VS_BARE, RATIO, IMPORT_S = 1.2, 0.5, 0.15
QUIET = {"DO_NOT_TRACK": "1", "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR", "OTEL_SDK_DISABLED": "true"}
IMPORTS = {
    "windlass": "import windlass",
    "windlass.task": "import windlass; windlass.task",
    "instructor": "import instructor, openai",
    "pydantic_ai": "from pydantic_ai import Agent",
    "litellm": "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'; import litellm",
}

Way = Literal["wait", "loop"]


@dataclass
class Process:
    """A contender: it reads a turn a line, and answers with what that took."""

    name: str
    way: Way
    process: subprocess.Popen[str]
    first: dict[str, Any]
    turns: list[dict[str, Any]] = field(default_factory=list)
    bursts: list[dict[str, Any]] = field(default_factory=list)

    def take(self, **turn: int) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(turn) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ({self.way}) ended in the middle of a turn; what it said is above.")
        took: dict[str, Any] = json.loads(line)
        return took

    def us(self, what: str, calls: int) -> list[float]:
        """Microseconds a call, a number a turn."""
        return [turn[what] / calls * 1e6 for turn in self.turns]


# processes ------------------------------------------------------------------------------------------------------------


def _cores() -> tuple[int, int]:
    """For the provider, and for the contenders."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def _environment() -> dict[str, str]:
    return {**os.environ, **QUIET, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_PROXY": "127.0.0.1"}


def _on(core: int) -> Callable[[], None]:
    """A thousand connections take as many files, and some shells allow 1,024."""

    def prepare() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, most) if most > 0 else 8192, most))
        os.sched_setaffinity(0, {core})

    return prepare


@contextlib.contextmanager
def provider() -> Iterator[str]:
    """Its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench._tasks_provider"], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=_on(_cores()[0]),
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def started(python: str, name: str, way: Way, url: str) -> Iterator[Process | str]:
    """The contender after its first call; or why there is none."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                [python, "-m", "bench._tasks_contenders", name, way, f"{url}/v1"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=said, text=True, cwd=folder, env=_environment(),
                preexec_fn=_on(_cores()[1]),
            )  # fmt: skip
        except FileNotFoundError:
            yield f"there is no {python}"
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            line = process.stdout.readline()
            yield Process(name, way, process, json.loads(line)) if line else _last(said)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(60)
            process.stdout.close()
            if process.returncode:
                print(f"{name} ({way}) ended with {process.returncode}: {_last(said)}", file=sys.stderr)


def _last(said: IO[str]) -> str:
    said.seek(0)
    return (said.read().strip().splitlines() or ["it said nothing"])[-1]


def told(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}/{path}") as answer:
        return json.load(answer)


def imported(python: str, code: str) -> float | None:
    """CPU seconds, in a new process; None where that cannot be imported."""
    clock = f"import time; before = time.process_time(); {code}; print(time.process_time() - before)"
    done = subprocess.run(
        [python, "-c", clock], capture_output=True, text=True, env=_environment(), check=False,
        preexec_fn=_on(_cores()[1]),
    )  # fmt: skip
    return float(done.stdout) if done.returncode == 0 else None


# turns ----------------------------------------------------------------------------------------------------------------


def burst(one: Process, url: str) -> None:
    told(url, f"reset/{THINKS_S}")
    took = one.take(at_once=AT_ONCE)
    one.bursts.append({**took, "under_way": told(url, "most")})
    told(url, "reset/0")


def over_wire(one: Process, wire: Process, calls: int, what: str = "wall_s") -> list[float]:
    return [a - b for a, b in zip(one.us(what, calls), wire.us(what, calls), strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


# the report -----------------------------------------------------------------------------------------------------------


def _calls_table(ways: dict[Way, dict[str, Process]], calls: int) -> None:
    for way, title in (("wait", "one after the other, waiting"), ("loop", "one after the other, on an event loop")):
        print(f"\n{title:42}{'call':>9}{'over wire':>11}{'vs bare':>9}{'CPU':>9}{'first call, CPU s':>19}")
        here = ways[way]
        for name, one in here.items():
            wall, cpu = (statistics.median(one.us(what, calls)) for what in ("wall_s", "cpu_s"))
            over = statistics.median(over_wire(one, here["wire"], calls))
            bare = ratio(one.us("wall_s", calls), here["bare"].us("wall_s", calls))
            shown = f"{over:11.0f}{bare:9.2f}" if name != "wire" else " " * 20
            print(f"{name:42}{wall:9.0f}{shown}{cpu:9.0f}{one.first['first_cpu_s']:19.3f}   (microseconds)")


def _bursts_table(loops: dict[str, Process]) -> None:
    print(
        f"\n{f'{AT_ONCE:,} at once, each answered in {THINKS_S} s':42}{'seconds':>9}{'under way':>11}{'CPU':>9}", end=""
    )
    print(f"{'grew':>9}{'later':>9}{'failed':>9}   (microseconds a call, MB)")
    for name, one in loops.items():
        wall, cpu = (statistics.median(b[what] for b in one.bursts) for what in ("wall_s", "cpu_s"))
        first, later = grown(one)
        most = max(b["under_way"] for b in one.bursts)
        failed, why = sum(b["failed"] for b in one.bursts), next((b["why"] for b in one.bursts if b["why"]), "")
        print(f"{name:42}{wall:9.2f}{most:11.0f}{cpu / AT_ONCE * 1e6:9.0f}{first:9.1f}{later:9.1f}{failed:9}  {why}")


def grown(one: Process) -> tuple[float, float]:
    """Megabytes: at the peak of the first burst, and the last burst's peak, both from before the first one."""
    before = one.bursts[0]["resident"]
    return tuple((b["peak"] - before) / 2**20 for b in (one.bursts[0], one.bursts[-1]))  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400, help="of each turn")
    parser.add_argument("--bursts", type=int, default=5, help=f"of {AT_ONCE:,} calls at once")
    parser.add_argument("--peers", default=os.environ.get("WINDLASS_PEERS", str(PEERS)), help="the peers' Python")
    args = parser.parse_args()
    pythons = dict.fromkeys(("wire", "bare", "windlass"), sys.executable)
    pythons |= dict.fromkeys(("instructor", "pydantic_ai", "litellm"), args.peers)
    missing: dict[str, str] = {}
    ways: dict[Way, dict[str, Process]] = {"wait": {}, "loop": {}}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(provider())
        for name, python in pythons.items():
            for way in ways if name not in missing else ():
                one = stack.enter_context(started(python, name, way, url))
                if isinstance(one, str):
                    missing[name] = one
                    print(f"{name} is missing: {one}", flush=True)
                    break
                ways[way][name] = one
        for _ in range(args.rounds):
            for one in (*ways["wait"].values(), *ways["loop"].values()):
                one.turns.append(one.take(calls=args.calls))
        for one in ways["loop"].values():
            for _ in range(args.bursts):
                burst(one, url)
        imports = _imports(args.peers, args.rounds)
        _calls_table(ways, args.calls)
        _bursts_table(ways["loop"])
        print("\nCPU seconds to import: " + ", ".join(f"{name} {took:.3f}" for name, took in imports.items()))
        result = _result(ways, imports, missing, args.calls)
    print(f"limits: {VS_BARE} x bare, {RATIO} of the lightest peer over wire, import {IMPORT_S} s, no SDK imported")
    print(json.dumps(result))
    return 0 if result["holds"] else 1


def _imports(peers: str, rounds: int) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            python = sys.executable if name.startswith("windlass") else peers
            if os.path.exists(python) and (took := imported(python, code)) is not None:
                found.setdefault(name, []).append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def _result(
    ways: dict[Way, dict[str, Process]], imports: dict[str, float], missing: dict[str, str], calls: int
) -> dict[str, Any]:
    peers = [name for name in ways["loop"] if name not in ("wire", "bare", "windlass")]
    result: dict[str, Any] = {"bench": "tasks", "ratio": None, "against": None}
    for what, cpu in (("wall_s", ""), ("cpu_s", "_cpu")):
        bare: list[float] = []
        for way, here in ways.items():
            ours, wire = here["windlass"], here["wire"]
            bare.append(ratio(ours.us(what, calls), here["bare"].us(what, calls)))
            over = {name: over_wire(here[name], wire, calls, what) for name in peers}
            lightest = min(peers, key=lambda name: statistics.median(over[name]), default=None)
            if lightest is None:
                continue
            one = ratio(over_wire(ours, wire, calls, what), over[lightest])
            if one > (result.get(f"ratio{cpu}") or 0):
                result |= {f"ratio{cpu}": round(one, 3), f"against{cpu}": f"{lightest}, {way}"}
        result[f"vs_bare{cpu}"] = round(max(bare), 3)
    ours = ways["loop"]["windlass"]
    result |= {"import_s": round(imports["windlass"], 4), "task_import_s": round(imports["windlass.task"], 4)}
    result["concurrent_s"] = round(statistics.median(b["wall_s"] for b in ours.bursts), 3)
    result["concurrent_mb"], result["concurrent_mb_later"] = (round(mb, 1) for mb in grown(ours))
    result["concurrent_failed"], result["sdks"] = sum(b["failed"] for b in ours.bursts), ours.first["sdks"]
    if missing:
        result["missing"] = missing
    result["holds"] = (
        result["vs_bare"] <= VS_BARE and result["import_s"] <= IMPORT_S
        and not result["sdks"] and not result["concurrent_failed"]
        and (result["ratio"] is None or result["ratio"] <= RATIO)
    )  # fmt: skip
    return result


if __name__ == "__main__":
    sys.exit(main())
