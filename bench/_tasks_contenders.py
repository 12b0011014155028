"""The contenders of `bench.tasks`. Each runs in a process of its own, in its own Python: this file imports nothing of
windlass or of a peer until that one is named.

    python -m bench._tasks_contenders NAME wait|loop URL

says in one line how it started and what its first call took; then it reads `{"calls": N}` or `{"at_once": N}` a line,
and answers with what that took.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._tasks_provider import DEAL, MODEL

if TYPE_CHECKING:
    from pydantic import BaseModel

INSTRUCTIONS = "Turn messy notes of a sales call into one record for the CRM. Invent nothing: what is not said is null."
NOTES = (
    "brightwater kliniken again!! spoke w/ Ana Kovač (a.kovac@brightwater.example) abt 120 analytics seats + onbrd\n"
    "she says 400/seat is the pain line, we're at 404.. total wld be 48.5k eur. board meets in dec, she is confident\n"
    "TODO revised offer incl 3y support by 1st of december, ask legal re DPA (no date). parking awful, coffee good\n"
) * 3  # fmt: skip
SDKS = ("openai", "anthropic", "google.genai", "litellm", "instructor", "pydantic_ai", "botocore", "boto3")


def _nothing() -> None: ...


@dataclass(frozen=True)
class Contender:
    ask: Callable[[], Any]
    aask: Callable[[], Awaitable[Any]]
    """The same on an event loop."""
    flush: Callable[[], None] = _nothing
    """What is left to do when the last call of a turn has returned: it belongs to the calls."""
    check: Callable[[], None] = _nothing
    """Whether all was done that is claimed; outside of what is measured."""


def deal_type() -> type[BaseModel]:
    """What everybody is to answer with. Defined late, as the import of pydantic belongs to the first call."""
    from typing import Literal

    from pydantic import BaseModel

    class Contact(BaseModel):
        name: str
        email: str | None
        phone: str | None

    class Step(BaseModel):
        what: str
        due: str | None

    class Deal(BaseModel):
        customer: str
        contact: Contact
        stage: Literal["lead", "qualified", "negotiation", "won", "lost"]
        value_eur: float | None
        products: list[str]
        next_steps: list[Step]
        summary: str

    return Deal


def _messages() -> list[dict[str, str]]:
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": NOTES}]


def wire(url: str) -> Contender:
    """The round trip itself: one write and one read of a socket. What all others add to is measured from here."""
    where = url.removeprefix("http://").partition("/")[0]
    body = json.dumps(_bare_body()).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer sk-bench\r\nContent-Length: %d\r\n\r\n%s" % (where.encode(), len(body), body)
    )
    connection = http.client.HTTPConnection(where)
    connection.connect()
    socket = connection.sock
    made: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def whole(data: bytes) -> bool:
        end = data.find(b"\r\n\r\n")
        return end > 0 and len(data) == end + 4 + int(data[:end].lower().split(b"content-length:")[1].split()[0])

    def ask() -> bytes:
        socket.sendall(request)
        data = socket.recv(1 << 16)
        while not whole(data):
            data += socket.recv(1 << 16)
        return data

    async def aask() -> bytes:
        reader, writer = made.pop() if made else await asyncio.open_connection(*where.split(":"))
        writer.write(request)
        data = await reader.read(1 << 16)
        while not whole(data):
            data += await reader.read(1 << 16)
        made.append((reader, writer))
        return data

    return Contender(ask, aask)


def _bare_body() -> dict[str, Any]:
    schema = {"name": "answer", "schema": deal_type().model_json_schema(), "strict": True}
    return {
        "model": MODEL, "messages": _messages(), "response_format": {"type": "json_schema", "json_schema": schema},
    }  # fmt: skip


def bare(url: str) -> Contender:
    """The HTTP client that windlass uses, as its documentation shows it: no types, no trace, no price, no retries."""
    import httpx2

    body, headers = _bare_body(), {"Authorization": "Bearer sk-bench"}
    many = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)  # as OpenAI's SDK has them
    client, aclient = httpx2.Client(headers=headers), httpx2.AsyncClient(headers=headers, limits=many, timeout=60)
    address = f"{url}/chat/completions"

    def ask() -> Any:
        response = client.post(address, json=body)
        response.raise_for_status()
        return json.loads(response.content)

    async def aask() -> Any:
        response = await aclient.post(address, json=body)
        response.raise_for_status()
        return json.loads(response.content)

    return Contender(ask, aask)


def windlass(url: str) -> Contender:
    """A task in a workspace, as a user has it: every call is traced to SQLite and priced, and kept to its window."""
    Path(".windlass").mkdir(exist_ok=True)
    Path("windlass.toml").write_text(
        f'[model]\nbase_url = "{url}"\nmodel = "{MODEL}"\napi_key_env = "BENCH_KEY"\n'
        f'[prices."{MODEL}"]\ninput = 0.4\noutput = 1.6\ncache_read = 0.1\n'
        f'[windows."{MODEL}"]\ncontext = 1_000_000\n',
        encoding="utf-8",
    )
    os.environ["BENCH_KEY"] = "sk-bench"
    import windlass as wl
    from windlass.apply.tasks.surroundings import here

    deal = deal_type()

    def record(notes: str) -> Any: ...

    record.__doc__, record.__annotations__["return"] = INSTRUCTIONS, deal
    task = wl.task(record)
    calls = 0

    def checked(outcome: Any) -> Any:
        nonlocal calls
        calls += 1
        assert math.isclose(outcome.cost_usd, (154 * 0.4 + 256 * 0.1 + 150 * 1.6) / 1e6), outcome.cost_usd
        return outcome.value

    def ask() -> Any:
        return checked(task.run(NOTES))

    async def aask() -> Any:
        return checked(await task.arun(NOTES))

    def check() -> None:
        workspace = here().workspace
        ((stored,),) = workspace.store.database.read("SELECT count(*) FROM spans")
        assert (stored, here().recorder.dropped) == (2 * calls, 0), (stored, calls)

    return Contender(ask, aask, lambda: here().recorder.flush(), check)


def instructor(url: str) -> Contender:
    import instructor as library
    import openai

    deal = deal_type()
    mode = library.Mode.JSON_SCHEMA
    client = library.from_openai(openai.OpenAI(base_url=url, api_key="sk-bench"), mode=mode)
    aclient = library.from_openai(openai.AsyncOpenAI(base_url=url, api_key="sk-bench"), mode=mode)

    def ask() -> Any:
        return client.chat.completions.create(model=MODEL, response_model=deal, messages=_messages())

    async def aask() -> Any:
        return await aclient.chat.completions.create(model=MODEL, response_model=deal, messages=_messages())

    return Contender(ask, aask)


def pydantic_ai(url: str) -> Contender:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key="sk-bench"))
    agent = Agent(model, output_type=NativeOutput(deal_type()), instructions=INSTRUCTIONS)

    async def aask() -> Any:
        return (await agent.run(NOTES)).output

    return Contender(lambda: agent.run_sync(NOTES).output, aask)


def litellm(url: str) -> Contender:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or its import asks GitHub
    import litellm as library

    deal = deal_type()
    library.telemetry = False
    asked: dict[str, Any] = {
        "model": f"openai/{MODEL}", "api_base": url, "api_key": "sk-bench", "messages": _messages(),
        "response_format": deal,
    }  # fmt: skip

    def read(answer: Any) -> Any:
        return deal.model_validate_json(answer.choices[0].message.content)

    async def aask() -> Any:
        return read(await library.acompletion(**asked))

    return Contender(lambda: read(library.completion(**asked)), aask)


CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "wire": wire, "bare": bare, "windlass": windlass, "instructor": instructor, "pydantic_ai": pydantic_ai,
    "litellm": litellm,
}  # fmt: skip

# turns ----------------------------------------------------------------------------------------------------------------


async def _one_by_one(aask: Callable[[], Awaitable[Any]], calls: int) -> None:
    for _ in range(calls):
        await aask()


async def _together(aask: Callable[[], Awaitable[Any]], at_once: int) -> list[BaseException]:
    """What went wrong."""
    came = await asyncio.gather(*(aask() for _ in range(at_once)), return_exceptions=True)
    return [one for one in came if isinstance(one, BaseException)]


def _memory(which: str) -> int:
    """Bytes of this process: `VmRSS` now, or `VmHWM` at most since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{which}:")) << 10


def _forget_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def main(name: str, way: str, url: str) -> None:
    before = time.process_time()
    one = CONTENDERS[name](url)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    answer = one.ask() if way == "wait" else loop.run_until_complete(one.aask())
    first = time.process_time() - before
    if hasattr(answer, "model_dump"):
        assert answer.model_dump() == DEAL, answer
    sdks = [sdk for sdk in SDKS if sdk in sys.modules]
    print(json.dumps({"first_cpu_s": first, "sdks": sdks}), flush=True)
    for line in sys.stdin:
        turn, resident, failed = json.loads(line), 0, list[BaseException]()
        if "at_once" in turn:
            _forget_peak()
            resident = _memory("VmRSS")
        cpu, wall = time.process_time(), time.perf_counter()
        if "at_once" in turn:
            failed = loop.run_until_complete(_together(one.aask, turn["at_once"]))
        elif way == "loop":
            loop.run_until_complete(_one_by_one(one.aask, turn["calls"]))
        else:
            for _ in range(turn["calls"]):
                one.ask()
        one.flush()
        took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        one.check()
        took |= {"resident": resident, "peak": _memory("VmHWM"), "failed": len(failed)}
        print(json.dumps({**took, "why": repr(failed[0])[:200] if failed else None}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
