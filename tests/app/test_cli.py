"""The `p2pd` command: exit status, and one line a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2pd.app.cli import main
from p2pd.app.config import NodeConfig
from p2pd.app.launch import explain, load_config
from p2pd.model.errors import ConfigError, P2pdError, StoreError, UserMistake


def raising(error: BaseException) -> int:
    def work() -> None:
        raise error

    return explain("p2pd", work)


@pytest.mark.parametrize(("error", "status"), [(ConfigError("a b"), 2), (StoreError("a b"), 1)])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_expected_error_is_one_line(
    error: P2pdError, status: int, depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    raised: BaseException = error
    for _ in range(depth):
        raised = BaseExceptionGroup("nursery", [raised])
    assert raising(raised) == status
    assert capsys.readouterr() == ("", "p2pd: a b\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())
    with pytest.raises(ExceptionGroup):
        raising(ExceptionGroup("nursery", [UserMistake("x"), ZeroDivisionError()]))


def test_an_interrupt_is_no_error() -> None:
    assert raising(KeyboardInterrupt()) == 130


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "p2pd: No such command 'fly'; see p2pd --help\n"),
        (["run", "--speed", "9"], "p2pd: No such option: --speed; see p2pd run --help\n"),
        (["run", "--config"], "p2pd: Option '--config' requires an argument; see p2pd --help\n"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", line)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: p2pd" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "p2pd" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["p2pd.app.cli", "seeder.cli"])
def test_the_daemon_is_not_charged_for_the_command_line(program: str, tmp_path: Path) -> None:
    """Everything up to the first await of the daemon is imported, nothing that it never calls."""
    config = tmp_path / "config.toml"
    config.touch()
    probe = f"""
import sys, trio, {program} as cli
trio.run = cli.leave = lambda *_: None
print(cli.main(["run", "--config", {str(config)!r}]), "p2pd.io.serve" in sys.modules)
never = {{"typer", "rich", "click", "argparse", "hpack", "html.entities", "multiprocessing.util"}}
print(*never & set(sys.modules))
import h2.connection, html, hypercorn.protocol.h2
print(hypercorn.protocol.h2.H2Protocol is not None and html.escape is not None)
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"], done.stderr


@pytest.mark.parametrize(
    "text", [None, "[node", '[node]\nsite = ""\n', "[mirror]\nlisten = 5\n", "[nodes]\n"]
)
def test_a_wrong_configuration_is_named(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p2pd.toml"
    if text is not None:
        path.write_text(text)
    assert main(["run", "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(path) in err


def test_the_default_file_is_optional(tmp_path: Path) -> None:
    default = tmp_path / "p2pd.toml"
    assert load_config(None, str(default), NodeConfig) == NodeConfig()
    default.write_text('[node]\nsite = "shop"\n')
    assert load_config(None, str(default), NodeConfig).node.site == "shop"
    other = tmp_path / "other.toml"
    other.write_text('[node]\nsite = "ship"\n')
    assert load_config(str(other), str(default), NodeConfig).node.site == "ship"


def test_a_stopped_daemon_ends_without_the_exit_handlers_of_libraries() -> None:
    code = "import atexit; from p2pd.app.launch import leave; atexit.register(print, 'late'); "
    code += "print('said'); leave()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")


@pytest.mark.parametrize("lost", ["None", "open('/dev/full', 'w')"])
def test_a_lost_stream_does_not_make_a_stop_a_failure(lost: str) -> None:
    code = f"import sys; from p2pd.app.launch import leave; sys.stdout = {lost}; print('x'); leave()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
