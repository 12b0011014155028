"""One corpus, whoever judged its documents: in this process, in several, on Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from corpus_world import Given, noisy, page, prose

from windlass.build.corpus import CorpusSettings, build_corpus, engine, ray_engine
from windlass.build.corpus.judging import Batch, Judge, Judged
from windlass.core.documents import Document
from windlass.core.errors import InputError, WindlassError
from windlass.core.readers import ReadReport
from windlass.core.workspace import Workspace

SETTINGS = CorpusSettings(pii="mask", heldout=0.3, near=0.7)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "home") as ws:
        yield ws


def test_batches_and_processes_do_not_show(workspace: Workspace) -> None:
    source = Given(noisy(800))
    corpus = build_corpus(workspace, source, SETTINGS)
    assert corpus.card["dropped"] > 100 and corpus.card["documents"] > 300

    def one_by_one(judge: Judge, batches: Iterator[Batch]) -> Generator[Judged, None, None]:
        yield from (judge([document]) for batch in batches for document in batch)

    assert build_corpus(workspace, source, SETTINGS, engine=one_by_one).digest == corpus.digest
    assert build_corpus(workspace, source, SETTINGS, engine=engine("local", 2)).digest == corpus.digest


class Looking(Given):
    """Notes where Ray listens while its documents are being read."""

    address = ""

    def documents(self, report: ReadReport) -> Iterator[Document]:
        for row in super().documents(report):
            ray = sys.modules.get("ray")
            if not self.address and ray is not None and ray.is_initialized():
                self.address = ray.nodes()[0]["NodeManagerAddress"]
            yield row


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_gives_the_same_corpus(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_WINDOW", 3)
    source = Looking(noisy(2000))
    corpus = build_corpus(workspace, source, SETTINGS)
    assert build_corpus(workspace, source, SETTINGS, engine=engine("ray", 2)).digest == corpus.digest
    assert source.address == "127.0.0.1"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_two_nodes_gives_the_same_corpus(workspace: Workspace) -> None:
    import ray
    from ray.cluster_utils import Cluster

    source = Given(noisy(2000))
    corpus = build_corpus(workspace, source, SETTINGS)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(wait=False, num_cpus=1)
        cluster.wait_for_nodes(timeout=120)  # a busy machine takes longer than the usual half minute
        ray.init(address=cluster.address, logging_level="ERROR")
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        assert build_corpus(workspace, source, SETTINGS, engine=engine("ray", 2)).digest == corpus.digest
        assert ray.is_initialized()  # it was not ours to stop
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_no_workers_are_refused() -> None:
    with pytest.raises(InputError, match="0 workers"):
        engine("local", 0)


class Dying(Judge):
    """A judge whose process is killed, as when memory runs out."""

    def __call__(self, documents: Batch) -> Judged:
        if documents[0].id == "p512":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(documents)


def test_a_worker_that_dies_is_reported() -> None:
    rows = noisy(1000)
    batches = (rows[start : start + 256] for start in range(0, 1000, 256))
    with pytest.raises(WindlassError, match="A process that judged documents died"):
        list(engine("local", 2)(Dying(SETTINGS), batches))


POOL = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from corpus_world import Given, page, prose
from windlass.build.corpus import build_corpus, engine
from windlass.core.workspace import Workspace

class Endless(Given):
    def documents(self, report):
        for i in range(100_000):
            if i == 5_000:
                print(*Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split(), flush=True)
            report.documents += 1
            yield page(f"p{i}", prose(i))
            time.sleep(0.01 if i > 5_000 else 0)

if __name__ == "__main__":
    build_corpus(Workspace(Path(sys.argv[1])), Endless([]), engine=engine("local", 2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_whoever_is_stopped_leaves_neither_processes_nor_half_an_artifact(tmp_path: Path, number: int) -> None:
    (script := tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, str(script), str(tmp_path / "home"), "-", str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) >= 2
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert number == signal.SIGKILL or b"KeyboardInterrupt" in errors
    deadline = time.monotonic() + 30
    while (alive := [pid for pid in children if _alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive
    with Workspace(tmp_path / "home") as ws:
        assert not ws.store.artifacts()
        assert [run.status for run in ws.runs.list()] == ["interrupted"]
        corpus = build_corpus(ws, Given([page("p", prose(1)), page("q", prose(2))]))
        assert list(ws.artifacts.folder.iterdir()) == [corpus.path]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
