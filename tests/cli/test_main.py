"""The command line as its users meet it: help, errors without tracebacks, exit statuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from windlass.cli import main as cli
from windlass.core.errors import NotFound


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
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
        cli.main(["--debug", "doctor"])
    assert exit_.value.code == 2 and "--debug" in capsys.readouterr().err


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


def test_debug_may_stand_behind_an_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound):
        cli.main(["index", "show", "docs", "--debug"])


def test_init_makes_a_workspace_and_keeps_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path)]) == 0
    settings = tmp_path / "windlass.toml"
    settings.write_text("[serve]\nport = 9000\n", encoding="utf-8")
    assert cli.main(["init", str(tmp_path)]) == 0
    assert settings.read_text(encoding="utf-8") == "[serve]\nport = 9000\n"
    assert "Workspace" in capsys.readouterr().out


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
