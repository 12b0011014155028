"""SIGHUP: a new configuration and a new certificate in a running gateway, without losing a request."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import httpx2
import openai
import pytest
from gateway_fakes import DONE, PIECES, good_stream, running, stream, whole
from gateway_process import gateway, leading_to


def ask(client: openai.OpenAI) -> str | None:
    return client.chat.completions.create(model="m", messages=[]).choices[0].message.content


def test_what_is_under_way_ends_as_it_began_and_the_next_goes_the_new_way(tmp_path: Path) -> None:
    slow = stream(*PIECES, DONE, delay=0.3)
    with running(slow) as old, running(whole(), good_stream()) as new, gateway(tmp_path, leading_to(old, "a")) as made:
        with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
            pieces = iter(client.chat.completions.create(model="m", messages=[], stream=True))
            got = [next(pieces)]
            before = httpx2.get(f"{made.url.removesuffix('/v1')}/health").json()["config"]
            made.reload(leading_to(new, "b"))
            made.said("gateway.toml is in force")
            assert ask(client) == "four"
            got += pieces
            assert "".join(piece.choices[0].delta.content or "" for piece in got) == "four"
            assert [r.json["model"] for r in old.requests] == ["a"] and [r.json["model"] for r in new.requests] == ["b"]
            assert httpx2.get(f"{made.url.removesuffix('/v1')}/health").json()["config"] != before
            made.reload(leading_to(old, "c", more="most_runing = 7"))
            made.complained("unknown key 'most_runing'. Did you mean 'most_running'?")
            made.reload(leading_to(old, "c").replace("http://", "ftp://"))
            made.complained("is not a plain http(s) URL")
            made.complained("The gateway goes on as before.")
            chunks = client.chat.completions.create(model="m", messages=[], stream=True)
            assert "".join(c.choices[0].delta.content or "" for c in chunks) == "four"
            assert len(old.requests) == 1
        assert "every request that had arrived was answered" in made.stop()


def test_no_request_is_lost_while_it_is_reloaded_again_and_again(tmp_path: Path) -> None:
    with running(whole()) as one, running(whole()) as two, gateway(tmp_path, leading_to(one, "a")) as made:
        answered: list[str | None] = []
        one_more, done = threading.Semaphore(0), threading.Event()

        def work() -> None:
            with openai.OpenAI(base_url=made.url, api_key="none", max_retries=0) as client:
                while not done.is_set():
                    answered.append(ask(client))
                    one_more.release()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            made.reload(leading_to((one, two)[number % 2], str(number)))
            made.said("gateway.toml is in force")
            assert all(one_more.acquire(timeout=20) for _ in range(4))
        done.set()
        for thread in threads:
            thread.join()
        asked = len(one.requests) + len(two.requests)
        assert set(answered) == {"four"} and len(answered) == asked
        assert {r.json["model"] for r in two.requests} <= {str(number) for number in range(1, 10, 2)}


def certified(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with the openssl command")
def test_https_with_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    first, second = certified(tmp_path, "first"), certified(tmp_path, "second")
    used = tmp_path / "used.pem", tmp_path / "used-key.pem"
    for source, target in zip(first, used, strict=True):
        shutil.copy(source, target)
    options = ("--tls-cert", str(used[0]), "--tls-key", str(used[1]))
    with running(whole()) as one, gateway(tmp_path, leading_to(one, "a"), *options) as made:
        assert made.url.startswith("https://127.0.0.1:")

        def models(certificate: Path) -> int:
            trust = ssl.create_default_context(cafile=certificate)
            return httpx2.get(f"{made.url}/models", verify=trust).status_code

        assert models(first[0]) == 200
        shutil.copy(second[0], used[0])  # without its key
        made.reload(leading_to(one, "b"))
        made.said("gateway.toml is in force")
        made.complained("The certificate stays as it was.")
        assert models(first[0]) == 200
        shutil.copy(second[1], used[1])
        made.reload(leading_to(one, "c"))
        made.said("gateway.toml is in force")
        assert models(second[0]) == 200
        with pytest.raises(httpx2.TransportError):
            models(first[0])
