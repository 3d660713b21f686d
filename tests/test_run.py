"""Whole shootouts on a tiny model: what they leave behind, what they run again, and what they survive."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlbench import describe, reporting, verbs
from mlbench.core import Checkpoint
from mlbench.errors import ConfigError, UserError
from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench

# MLflow 3.17 makes SQLAlchemy warn of itself.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(
    make_bench: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bench, verbs.Outcome]:
    """Return a run with two seeds that nobody may change."""
    bench = make_bench(tmp_path_factory.mktemp("finished"))
    return bench, verbs.run(bench.write(seeds=[0, 1]), inline=True)


def copied(finished: tuple[Bench, verbs.Outcome], folder: Path) -> Bench:
    """Return a copy of the finished run that a test may change."""
    shutil.copytree(finished[0].folder, folder / "bench")
    return Bench(folder=folder / "bench")


def rows(run: Path) -> dict[str, bytes]:
    """Return the bytes of every answers.parquet and verdicts.parquet by job."""
    found = [*run.glob("jobs/answer/*/answers.parquet"), *run.glob("jobs/judge/*/verdicts.parquet")]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def verdicts(run: Path) -> Any:
    return frames.verdicts(frames.read_plan(run), Store(run))


def jobs(run: Path) -> Any:
    return frames.jobs(frames.read_plan(run), Store(run))


def test_every_cell_gets_its_verdicts(finished: tuple[Bench, verbs.Outcome]) -> None:
    bench, outcome = finished
    found = verdicts(bench.folder / "run")
    # 2 methods x 2 seeds x 3 languages x 4 prompts
    assert len(found) == 2 * 2 * 3 * 4
    assert set(found["trained"][found["language"] == "xb"]) == {False}
    assert (outcome.exit_code, outcome.failed) == (0, 0)
    # none: 1 align + 3 answers + 3 verdicts for both seeds; sft: as many for each seed
    assert outcome.ran == 7 + 2 * 7


def test_report_and_tables_are_written(finished: tuple[Bench, verbs.Outcome]) -> None:
    report = finished[0].folder / "run" / "report"
    assert {path.suffix for path in report.rglob("*") if path.is_file()} >= {".html", ".csv", ".md"}
    assert finished[1].report["report.html"].is_file()
    assert finished[1].results is not None
    assert set(finished[1].results.ranking["method"]) == {"none", "sft"}


def mlflow_runs(bench: Bench) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{bench.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    return list(client.search_runs([experiment.experiment_id]))


def test_mlflow_has_one_parent_and_one_child_per_method_model_and_seed(finished: tuple[Bench, verbs.Outcome]) -> None:
    found = mlflow_runs(finished[0])
    children = [run for run in found if run.data.tags["mlbench.role"] == "checkpoint"]
    (parent,) = [run for run in found if run.data.tags["mlbench.role"] == "shootout"]
    names = {(run.data.tags["mlbench.method"], run.data.tags["mlbench.seed"]) for run in children}
    assert names == {("none", "0"), ("none", "1"), ("sft", "0"), ("sft", "1")}
    assert len(children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in found} == {"FINISHED"}
    sft = next(run for run in children if run.data.tags["mlbench.method"] == "sft")
    assert sft.data.params["training.steps"] == "2"
    assert sft.data.params["sft.benign"] == "True"
    assert {"asr/requests/en", "macro/asr", "train/loss", "cost/steps"} <= set(sft.data.metrics)
    assert parent.data.params["baseline"] == "none"


def test_running_again_runs_nothing_and_makes_no_duplicates(finished: tuple[Bench, verbs.Outcome]) -> None:
    bench, _ = finished
    before = {run.info.run_id for run in mlflow_runs(bench)}
    written = rows(bench.folder / "run")
    (bench.folder / "run" / "tracked.json").unlink()  # mirror once more, whatever the marker says
    again = verbs.run(bench.folder / "tiny.yaml", inline=True)
    assert (again.ran, again.exit_code) == (0, 0)
    assert {run.info.run_id for run in mlflow_runs(bench)} == before
    assert rows(bench.folder / "run") == written


def test_status_of_a_finished_run(finished: tuple[Bench, verbs.Outcome]) -> None:
    about = describe.of_run(finished[0].folder / "run")
    assert about["jobs"] == {"align done": 3, "answer done": 9, "judge done": 9}
    assert about["running"] == {} and about["failed"] == []


def test_each_checkpoint_is_loaded_once_for_all_its_languages(finished: tuple[Bench, verbs.Outcome]) -> None:
    table = jobs(finished[0].folder / "run").drop_duplicates("key")
    assert table[table["kind"] == "answer"]["loads"].sum() == 3


def test_a_method_that_changes_nothing_is_warned_of(bench: Bench) -> None:
    plugins = bench.plugins(bench.method("run.record(weight_change=0.0)\nreturn start", name="nothing"))
    outcome = verbs.run(
        bench.write(methods=["none", "nothing"], plugins=plugins, tracking={"enabled": False}), inline=True
    )
    assert outcome.results is not None
    assert any("nothing" in warning for warning in outcome.results.warnings), outcome.results.warnings


def test_adding_a_method_runs_its_jobs_only(finished: tuple[Bench, verbs.Outcome], tmp_path: Path) -> None:
    bench = copied(finished, tmp_path)
    text = (finished[0].folder / "tiny.yaml").read_text().replace(str(finished[0].folder), str(bench.folder))
    (bench.folder / "tiny.yaml").write_text(
        text.replace(
            'methods: ["none", ', 'methods: ["none", {"use": "sft", "name": "all", "with": {"benign": false}}, '
        )
    )
    before = rows(bench.folder / "run")
    outcome = verbs.run(bench.folder / "tiny.yaml", ["seeds=[0]"], inline=True)
    assert (outcome.ran, outcome.exit_code) == (7, 0)
    assert before.items() <= rows(bench.folder / "run").items()


@pytest.mark.parametrize("kind", ["align", "answer", "judge"])
def test_a_deleted_job_is_done_again_with_the_same_result(
    finished: tuple[Bench, verbs.Outcome], tmp_path: Path, kind: str
) -> None:
    bench = copied(finished, tmp_path)
    text = (bench.folder / "tiny.yaml").read_text().replace(str(finished[0].folder), str(bench.folder))
    (bench.folder / "tiny.yaml").write_text(text)
    before = rows(bench.folder / "run")
    trained = {
        str(path.relative_to(bench.folder)): path.read_bytes()
        for path in bench.folder.rglob("adapter_model.safetensors")
    }
    table = jobs(bench.folder / "run")
    key = table[(table["kind"] == kind) & (table["method"] == "sft")]["key"].iloc[0]
    Store(bench.folder / "run").discard(key)
    assert verbs.run(bench.folder / "tiny.yaml", ["tracking.enabled=false"], inline=True).ran == 1
    assert rows(bench.folder / "run") == before
    assert {
        str(path.relative_to(bench.folder)): path.read_bytes()
        for path in bench.folder.rglob("adapter_model.safetensors")
    } == trained


def test_a_run_folder_can_be_moved(finished: tuple[Bench, verbs.Outcome], tmp_path: Path) -> None:
    bench = copied(finished, tmp_path)
    store = Store(bench.folder / "run")
    table = jobs(bench.folder / "run")
    checkpoints = [
        store.checkpoint(key) for key in table[(table["kind"] == "align") & (table["method"] == "sft")]["key"]
    ]
    for checkpoint in checkpoints:
        assert isinstance(checkpoint, Checkpoint)
        assert all(Path(path).is_dir() and Path(path).is_relative_to(bench.folder) for path in checkpoint.adapters)
    written, _ = reporting.write_report(bench.folder / "run")
    assert written["report.html"].is_relative_to(bench.folder)


def test_a_run_folder_of_another_shootout_is_refused(finished: tuple[Bench, verbs.Outcome], tmp_path: Path) -> None:
    path = finished[0].folder / "tiny.yaml"
    with pytest.raises(ConfigError, match="belongs to another shootout, 'tiny'"):
        verbs.run(path, ["name=other"], inline=True)
    (tmp_path / "precious.txt").touch()
    with pytest.raises(ConfigError, match="exists and is no run folder"):
        verbs.run(path, [f"out={tmp_path}"], inline=True)
    with pytest.raises(ConfigError, match="cannot make the run folder"):
        verbs.run(path, [f"out={tmp_path / 'precious.txt' / 'run'}"], inline=True)
    assert [item.name for item in tmp_path.iterdir()] == ["precious.txt"]


def test_a_second_driver_is_refused(finished: tuple[Bench, verbs.Outcome]) -> None:
    from filelock import FileLock

    with FileLock(finished[0].folder / "run" / ".lock"), pytest.raises(UserError, match="another mlbench is running"):
        verbs.run(finished[0].folder / "tiny.yaml", inline=True)


def failing(bench: Bench, body: str, **changes: Any) -> Path:
    """Write a shootout with a method of this body, alone and at the head of a chain."""
    return bench.write(
        **{
            "methods": ["none", "odd", {"use": ["odd", "sft"]}],
            "plugins": bench.plugins(bench.method(body)),
            "tracking": {"enabled": False},
        }
        | changes
    )


def test_a_failed_method_is_a_row_and_the_rest_goes_on(bench: Bench) -> None:
    mark = bench.folder / "mended"
    body = f'if not Path("{mark}").exists():\n    raise ValueError("no luck [today]")\nreturn start'
    path = failing(bench, body)
    outcome = verbs.run(path, inline=True)
    table = jobs(bench.folder / "run")
    failed = table[table["status"] == "failed"].drop_duplicates("key").iloc[0]
    assert (failed["error_type"], failed["error"]) == ("ValueError", "no luck [today]")
    assert "Traceback" in Path(failed["log"]).read_text()
    assert set(table[table["method"] == "none"]["status"]) == {"done"}
    assert set(table[table["method"] == "odd"]["status"]) == {"failed", "skipped"}
    assert set(table[table["method"] == "odd+sft"]["status"]) == {"failed", "skipped"}
    assert outcome.exit_code == 1
    # none: align + 3 answers + 3 verdicts; odd: its align, which the chain shares
    assert outcome.ran == 8
    assert outcome.report["report.html"].is_file()
    assert [item["error"] for item in describe.of_run(bench.folder / "run")["failed"]] == [
        "ValueError: no luck [today]"
    ]
    mark.touch()
    again = verbs.run(path, inline=True)
    assert again.exit_code == 0
    assert set(jobs(bench.folder / "run")["status"]) == {"done"}


def test_the_grid_stops_when_failures_are_too_many(bench: Bench) -> None:
    outcome = verbs.run(failing(bench, "raise ValueError", schedule={"fail_on_error": True}), inline=True)
    # The aligns come first: none is done, odd fails, and nothing is started after that.
    assert outcome.ran == 2
    assert outcome.exit_code == 1
    assert outcome.results is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return None", "returned None, which is no Checkpoint"),
        ("run.log(1, 1, loss=float('nan'))\nreturn start", "loss is nan at step 1 of 1: the training diverged"),
        ("raise SystemExit(3)", "3"),
        ("raise MemoryError", ""),
    ],
)
def test_what_a_method_does_wrong_fails_its_job_only(bench: Bench, body: str, error: str) -> None:
    outcome = verbs.run(failing(bench, body, methods=["none", "odd"], languages=["en"], unseen=None), inline=True)
    table = jobs(bench.folder / "run")
    assert outcome.exit_code == 1
    assert error in table[table["status"] == "failed"]["error"].iloc[0]
    assert set(table[table["method"] == "none"]["status"]) == {"done"}


def test_numbers_of_other_libraries_are_numbers(bench: Bench) -> None:
    body = "import numpy, torch\nrun.record(weight_change=numpy.float32(0.5), steps=3, note='x')\n"
    body += "run.log(1, 1, loss=torch.tensor(0.25))\nreturn start"
    outcome = verbs.run(failing(bench, body, methods=["none", "odd"]), inline=True)
    assert outcome.exit_code == 0
    data = frames.read_plan(bench.folder / "run")
    curves = frames.curves(data, Store(bench.folder / "run"))
    assert [{"step": 1, "loss": 0.25}] in curves.values()


def test_a_limited_run_is_marked_partial_and_does_not_mix_with_a_full_one(bench: Bench) -> None:
    path = bench.write(methods=["none"], corpus=None, tracking={"enabled": False})
    verbs.run(path, ["limit=2"], inline=True)
    assert set(verdicts(bench.folder / "run")["partial"]) == {True}
    assert verbs.run(path, inline=True).ran == 6  # the model is aligned already, nothing else is shared
    assert set(verdicts(bench.folder / "run")["partial"]) == {False}
    assert len(verdicts(bench.folder / "run")) == 3 * 4


def test_a_mirror_that_cannot_be_written_does_not_cost_the_report(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    (bench.folder / "file").touch()
    path = bench.write(methods=["none"], corpus=None, tracking={"uri": f"sqlite:///{bench.folder / 'file' / 'x.db'}"})
    outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    assert outcome.report["report.html"].is_file()
    assert "warning: MLflow could not be written" in capsys.readouterr().err
    assert not (bench.folder / "run" / "tracked.json").exists()
