"""The command line as a person meets it: exit codes, help with examples, JSON that is only JSON, short errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlbench import __version__, cli, verbs

from .conftest import Bench

VERBS = [
    "demo", "run", "plan", "status", "report", "list", "show", "check", "doctor", "organism build", "organism report",
    "probe", "judge", "translate", "compare", "track", "ui",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(make_bench: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = make_bench(tmp_path_factory.mktemp("finished"))
    verbs.run(bench.write(methods=["none"], corpus=None, tracking={"enabled": False}), inline=True)
    return bench


class Ended:
    """What a command left: its exit code and both streams."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def mlbench(
    finished: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return the command line as a function that runs in the folder of a finished run."""

    def run(*words: str) -> Ended:
        monkeypatch.chdir(finished.folder)
        monkeypatch.setattr("sys.argv", ["mlbench", *words])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return Ended(int(code or 0), out, err)

    return run


def test_every_verb_is_tested_here(mlbench: Callable[..., Ended]) -> None:
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert names == {verb for verb in VERBS if " " not in verb}


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(mlbench: Callable[..., Ended], verb: str) -> None:
    ended = mlbench(*verb.split(), "--help")
    assert ended.code == 0
    assert f"mlbench {verb}" in ended.out.partition("Example:")[2]


def test_help_and_version(mlbench: Callable[..., Ended]) -> None:
    assert "mlbench demo" in mlbench("--help").out
    assert mlbench("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("list", "methods"),
        ("list", "tasks"),
        ("list", "judges"),
        ("list", "models"),
        ("show", "sft"),
        ("show", "refusal"),
        ("plan", "tiny.yaml"),
        ("status", "run"),
        ("doctor",),
    ],
)
def test_json_is_json_and_nothing_else(mlbench: Callable[..., Ended], words: tuple[str, ...]) -> None:
    ended = mlbench(*words, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)
    assert mlbench(*words).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "nowhere.yaml"), "error: file 'nowhere.yaml' does not exist"),
        (("plan", "."), "error: '.' is a folder"),
        (("plan", "tiny.yaml", "--set", "seeds"), "error: --set takes key=value, got 'seeds'"),
        (("plan", "tiny.yaml", "--set", "training.stepz=3"), "error: --set: training.stepz: unknown key 'stepz'"),
        (("run", "tiny.yaml", "--inline", "--set", "name=other"), "error: out: the run folder"),
        (("status", "."), "error: '.' is not a run folder"),
        (("report", "."), "error: '.' is not a run folder"),
        (("compare", "."), "error: '.' is not a run folder"),
        (("compare", "run", "--metric", "safety"), "error: unknown metric 'safety'"),
        (("compare", "run"), "error: the run has no other method to compare 'none' with"),
        (("list", "metods"), "error: unknown list 'metods'"),
        (("show", "sfft"), "error: unknown plugin 'sfft'"),
        (("check", "sfft"), "error: unknown plugin 'sfft'"),
        (("check", "--plugin", "x.py"), "error: --plugin takes KIND:FILE, got 'x.py'"),
        (("organism", "build", "organism:huge"), "error:"),
        (("organism", "report", "--seeds", "many"), "error: --seeds takes numbers and ranges, got 'many'"),
        (("pln", "tiny.yaml"), "No such command 'pln'. Did you mean 'plan'?"),
        (("plan",), "Missing argument 'SHOOTOUT.YAML'"),
        (("plan", "tiny.yaml", "--limit", "0"), "Invalid value for '--limit'"),
        (("plan", "tiny.yaml", "--nope"), "No such option: --nope"),
        ((), "Commands:"),
    ],
)
def test_wrong_usage_is_one_screen_on_stderr_and_exit_code_2(
    mlbench: Callable[..., Ended], words: tuple[str, ...], message: str
) -> None:
    ended = mlbench(*words)
    assert ended.code == 2
    assert message in ended.err + (ended.out if not words else "")
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) <= (8 if words else 40)
    assert ended.out == "" or not words


def test_a_run_that_finishes_is_0_and_tells_where_the_report_is(mlbench: Callable[..., Ended]) -> None:
    ended = mlbench("run", "tiny.yaml", "--inline")
    assert ended.code == 0
    assert "0 jobs ran, 0 failed" in ended.out
    assert "report.html" in ended.out
    assert mlbench("report", "run").code == 0


def test_a_run_with_failures_is_1(bench: Bench, mlbench: Callable[..., Ended]) -> None:
    plugins = bench.plugins(bench.method("raise ValueError('no luck')"))
    path = bench.write(methods=["none", "odd"], plugins=plugins, tracking={"enabled": False})
    ended = mlbench("run", str(path), "--inline")
    assert ended.code == 1
    assert "failed: odd · model · seed 0 (align): ValueError: no luck" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    status = mlbench("status", str(bench.folder / "run"))
    assert "ValueError: no luck" in status.out
    assert "log.txt" in status.out


def test_an_interruption_is_130(mlbench: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "make_plan", interrupted)
    ended = mlbench("plan", "tiny.yaml")
    assert ended.code == 130
    assert "interrupted: finished jobs are kept" in ended.err


def test_the_command_is_installed_and_answers_as_a_process(finished: Bench) -> None:
    ended = finished.mlbench("plan", "tiny.yaml", "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["name"] == "tiny"
    assert ended.stderr == ""
    wrong = finished.mlbench("plan", "nowhere.yaml")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: file 'nowhere.yaml' does not exist")
