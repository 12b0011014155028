"""The command line as its users meet it: help, errors without tracebacks, exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from windlass.cli import main as cli
from windlass.core.errors import NotFound
from windlass.core.extras import ALL, EXTRAS


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert text.index("windlass ingest FOLDER") < text.index("begin:") and "positional" not in text
    for name, line in cli.COMMANDS.items():
        assert name in text
        assert line in text


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    assert f"usage: windlass {name}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "hint"), [("dmeo", "Did you mean 'demo'?"), ("qqq", "`windlass --help`")])
def test_an_unknown_command_is_refused_in_two_lines(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"windlass: There is no command '{name}'." and hint in second


def test_an_option_before_the_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--workspace", "x", "doctor"])
    assert exit_.value.code == 2 and "--workspace stands before a command" in capsys.readouterr().err


def test_help_may_be_asked_for_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["help", "ask"])
    assert exit_.value.code == 0 and "usage: windlass ask" in capsys.readouterr().out


def test_an_error_is_two_lines_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "windlass.toml").write_text("[serv]\nport = 1\n", encoding="utf-8")
    assert cli.main(["init", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "windlass.toml: unknown key 'serv'" in lines[0]
    assert "Did you mean 'serve'?" in lines[1]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "windlass.toml").write_text("[serv]\n", encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "windlass", "init", str(tmp_path), "--debug"], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" in answer.stderr


def test_a_folder_that_is_misspelt_is_not_taken_for_a_model_of_a_workspace(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", "./gone"]) == 2
    assert "There is no folder ./gone." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["index", "show", "docs", "--debug"], ["--debug", "index", "show", "docs"], ["traces", "--debug"]]
)
def test_debug_may_stand_anywhere_and_changes_no_exit_status(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == NotFound.exit_code
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "\nwindlass: No workspace in " in err


def test_a_missing_extra_is_no_fault_of_windlass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = iter(("torch.nn", "python_multipart", "windlass.gone"))

    def run(args: object) -> int:
        raise ModuleNotFoundError("No module named so.", name=next(wanted))

    monkeypatch.setattr("windlass.cli.releases.run", run)
    for status, says in (
        (2, "`windlass releases` needs the optional dependencies of windlass[build]"),
        (2, 'pip install "windlass[serve]"'),
        (70, "This is a fault in windlass"),
    ):
        assert cli.main(["releases"]) == status
        assert says in capsys.readouterr().err


def test_a_name_that_is_no_text_ends_no_command(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.md")
    for encoding in ("utf-8", "ascii"):
        answer = subprocess.run(
            [sys.executable, "-m", "windlass", "ingest", odd],
            cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert answer.returncode == 2 and "caf\\udce9.md does not exist" in answer.stderr


def test_a_reader_who_goes_away_ends_it_quietly() -> None:
    lines = f"{sys.executable} -m windlass metrics | true"
    answer = subprocess.run(["bash", "-c", f"{lines}; echo ${{PIPESTATUS[0]}}"], capture_output=True, timeout=60)
    assert answer.stdout in (b"0\n", b"141\n") and answer.stderr == b""


def test_init_makes_a_workspace_and_keeps_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path)]) == 0
    settings = tmp_path / "windlass.toml"
    settings.write_text("[serve]\nport = 9000\n", encoding="utf-8")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert settings.read_text(encoding="utf-8") == "[serve]\nport = 9000\n"
    assert "Workspace" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["traces", "runs"])
@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_list_of_nothing_is_refused(
    command: str, limit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["init", str(tmp_path)])
    assert cli.main([command, "--limit", limit, "--workspace", str(tmp_path)]) == 2
    assert f"--limit {limit} lists nothing" in capsys.readouterr().err


def test_doctor_names_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "windlass.toml").write_text("[serve]\nport = 'x'\n", encoding="utf-8")
    assert cli.main(["doctor", str(tmp_path)]) == 1
    assert "'serve.port' is 'x'" in capsys.readouterr().out


def test_doctor_names_a_dead_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = '[model]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
    (tmp_path / "windlass.toml").write_text(settings, encoding="utf-8")
    assert cli.main(["doctor", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "http://127.0.0.1:9/v1/models does not answer" in text
    assert "mend [model] base_url" in text


def test_doctor_knows_every_extra_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        extra: tuple(re.match(r"[\w.-]+", one).group() for one in wants)  # type: ignore[union-attr]
        for extra, wants in project["optional-dependencies"].items()
    }
    for several in ("demo", "test", "bench"):
        del declared[several]
    whole = set(re.search(r"\[(.*)\]", project["optional-dependencies"]["all"][0])[1].split(","))  # type: ignore[index]
    del declared["all"]
    assert {extra: distributions for extra, (_, distributions) in EXTRAS.items()} == declared
    assert whole == ALL


def test_doctor_tells_what_is_missing_and_what_evaluation_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("windlass.loop.doctor._version", lambda name: None if name in ("pypdf", "ray") else "1.0")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-shown")
    monkeypatch.delenv("WINDLASS_DATA", raising=False)
    assert cli.main(["doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    lines = {line[8:29].strip(): line for line in out.splitlines()}
    assert lines["windlass[documents]"].startswith("missing") and "no pypdf" in lines["windlass[documents]"]
    assert lines["windlass[ray]"].startswith("- ") and 'pip install "windlass[ray]"' in out
    assert lines["benchmarks"].startswith("- ") and "WINDLASS_DATA" in out
    assert lines["sandbox"].startswith(("ok", "- "))
    assert "OPENAI_API_KEY" in lines["providers"] and "sk-not" not in out
    monkeypatch.setenv("WINDLASS_DATA", str(tmp_path))
    (tmp_path / ".windlass" / "indexes" / "docs").mkdir(parents=True)
    (tmp_path / ".windlass" / "indexes" / "docs" / "settings.json").write_text("{}")
    cli.main(["doctor", str(tmp_path)])
    out = capsys.readouterr().out
    assert f"data in {tmp_path}" in out and "0 artifacts, 1 living index\n" in out


def test_doctor_is_content_with_this_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "windlass[serve]" in text
    assert "cores" in text


def test_help_comes_in_two_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["eval", option])
        assert stopped.value.code == 0
        told.append(capsys.readouterr().out)
    short, whole = (set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)) for text in told)
    assert {"--metric", "--tasks", "--shots", "--against", "--out"} <= short
    assert {"--bos", "--truncate", "--served", "--at-once", "--seed"} <= whole - short
    assert len(told[0].splitlines()) <= 60 < len(told[1].splitlines())
