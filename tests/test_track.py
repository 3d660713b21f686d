"""The mirror in MLflow: real runs in real stores, and stores that are not there."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from mlbench import track, tracking, verbs
from mlbench.results import frames, words
from mlbench.store import Store
from mlbench.track import notes, overview
from tests.conftest import Bench

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # MLflow keeps its sqlite connections open

SFT = {"use": "sft", "training": {"lora_rank": 2}}
TALKS = "run.log(1, 2, loss=0.5)\nrun.log(2, 2, loss=0.25)\nreturn start"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store for all tests of this file: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def finished(
    make_bench: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory, uri: str
) -> tuple[Bench, verbs.Outcome]:
    """Return a run with two seeds, a chain, and a method that fails; nobody may change it."""
    bench = make_bench(tmp_path_factory.mktemp("finished"))
    plugins = bench.plugins(bench.method("raise ValueError('no luck')"), bench.method(TALKS, "talks"))
    chain = {"use": ["sft", "talks"], "name": "both", "training": {"lora_rank": 2}}
    path = bench.write(
        name="two", seeds=[0, 1], methods=["none", SFT, chain, "odd"], plugins=plugins, tracking={"uri": uri}
    )
    return bench, verbs.run(path, inline=True)


def runs(uri: str, name: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


def child(uri: str, name: str, method: str, seed: int = 0) -> Any:
    """Return the only child run of a method and seed."""
    wanted = {"mlbench.role": "checkpoint", "mlbench.method": method, "mlbench.seed": str(seed)}
    (found,) = [run for run in runs(uri, name) if wanted.items() <= run.data.tags.items()]
    return found


def parent(uri: str, name: str) -> Any:
    (found,) = [run for run in runs(uri, name) if run.data.tags["mlbench.role"] == "shootout"]
    return found


def history(uri: str, name: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return every point of every metric of every run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return {
        (run.info.run_id, key): [(at.step, at.value) for at in client.get_metric_history(run.info.run_id, key)]
        for run in runs(uri, name)
        for key in run.data.metrics
    }


def test_a_child_has_the_rates_of_its_own_seed_and_the_tests_over_all_seeds(
    finished: tuple[Bench, verbs.Outcome], uri: str
) -> None:
    results = finished[1].results
    assert results is not None
    ranking = results.ranking.set_index("method")
    cells = results.cells
    for seed in (0, 1):
        metrics = child(uri, "two", "sft", seed).data.metrics
        assert metrics["macro/asr"] == pytest.approx(ranking.loc["sft", "asr_by_seed"][seed])
        mine = cells[(cells["method"] == "sft") & (cells["seed"] == seed)].set_index("language")
        assert metrics["asr/requests/xb"] == mine.loc["xb", "asr"]
        assert metrics["macro/asr_unseen"] == mine.loc["xb", "asr"]  # xb is the one language never trained on
        assert metrics["over_seeds/asr"] == ranking.loc["sft", "asr"]
        assert metrics["delta/asr_vs_none"] == ranking.loc["sft", "delta"]
        assert metrics["p_adj/asr_vs_none"] == ranking.loc["sft", "p_holm"]
        assert metrics["delta_low/asr_vs_none"] == ranking.loc["sft", "delta_low"]
        assert metrics["delta_high/asr_vs_none"] == ranking.loc["sft", "delta_high"]
        assert metrics["over_seeds/asr_low"] == ranking.loc["sft", "asr_low"]
        assert metrics["cost/steps"] == 2


def test_a_curve_is_logged_by_step_for_each_link_of_a_chain(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    root = finished[0].folder / "run"
    (first, _), *_ = (
        cell["chain"] for cell in frames.read_plan(root)["cells"] if (cell["method"], cell["seed"]) == ("both", 0)
    )
    curve = json.loads((Store(root).folder(first) / "curve.json").read_text(encoding="utf-8"))
    run = child(uri, "two", "both")
    points = history(uri, "two")
    assert points[run.info.run_id, "train/sft/loss"] == [(point["step"], point["loss"]) for point in curve]
    assert points[run.info.run_id, "train/talks/loss"] == [(1, 0.5), (2, 0.25)]
    assert "train/loss" in child(uri, "two", "sft").data.metrics  # no chain, nothing to tell apart
    assert run.data.params["sft.training.steps"] == "2"


def test_runs_can_be_filtered_by_what_they_are(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    run = child(uri, "two", "sft")
    assert run.data.tags["mlbench.paper"] == "arXiv:2203.02155"
    assert run.data.tags["mlbench.fidelity"] == "baseline"
    assert run.data.tags["mlbench.model"] == frames.read_plan(finished[0].folder / "run")["models"][0]["name"]
    assert run.data.tags["mlbench.verdict"]
    assert run.data.tags["mlflow.parentRunId"] == parent(uri, "two").info.run_id
    assert str(finished[0].folder / "run") not in run.data.tags.values()


def test_a_failed_checkpoint_is_a_failed_run_with_its_error(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    good, bad = child(uri, "two", "sft"), child(uri, "two", "odd")
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert bad.data.tags["mlbench.error"] == "align: ValueError: no luck"
    assert "mlbench.error" not in good.data.tags
    assert parent(uri, "two").info.status == "FAILED"


def test_data_sets_report_and_tables_are_there(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    from mlflow import MlflowClient

    data = frames.read_plan(finished[0].folder / "run")
    keys = {data["jobs"][cell["judge_key"]]["spec"]["prompts"] for cell in data["cells"]}
    sft = child(uri, "two", "sft")
    found = {(entry.dataset.name, entry.dataset.digest) for entry in sft.inputs.dataset_inputs}
    assert {digest for name, digest in found if name.startswith("requests/")} == keys
    assert {name for name, _ in found} == {"corpus", "requests/en", "requests/xa", "requests/xb"}
    run = parent(uri, "two").info
    client = MlflowClient(tracking_uri=uri)
    logged = {file.path for file in client.list_artifacts(run.run_id)}
    assert {"report.html", "shootout.yaml", "latex", "tables"} <= logged
    folder = Path(track.sqlite_file(uri)).parent / "mlflow-artifacts" / "two" / run.run_id / "artifacts"
    table = json.loads((folder / "tables" / "ranking.json").read_text(encoding="utf-8"))
    column = table["columns"].index("method")
    assert {row[column] for row in table["data"]} == {"none", "sft", "both", "odd"}


def test_the_description_of_a_shootout_is_its_ranking(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    results = finished[1].results
    assert results is not None
    run = parent(uri, "two")
    lines = run.data.tags["mlflow.note.content"].splitlines()
    assert lines[0] == "**two**"
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == [words.md(method) for method in results.ranking["method"]]
    sft = results.ranking.set_index("method").loc["sft"]
    (shown,) = [row for row in rows if row[1] == "sft"]
    assert shown[2].startswith(f"{100 * sft['asr']:.1f} [")
    assert shown[4] == words.md(words.p_value(sft["p_holm"]))
    assert f"(#/experiments/{run.info.experiment_id}/runs?" in lines[2]


def test_the_description_of_a_checkpoint_says_what_it_is_and_why_it_failed(
    finished: tuple[Bench, verbs.Outcome], uri: str
) -> None:
    good, bad = child(uri, "two", "sft"), child(uri, "two", "odd", 1)
    assert (good.info.run_name, bad.info.run_name) == ("sft · seed 0", "odd · seed 1")
    plan = frames.read_plan(finished[0].folder / "run")
    text = good.data.tags["mlflow.note.content"]
    assert text.startswith(words.md(plan["about"]["sft"]["note"]))
    assert f"against none: {words.md(good.data.tags['mlbench.verdict'])}." in text
    assert "**Failed.** align: ValueError: no luck" in bad.data.tags["mlflow.note.content"]
    assert "Failed" not in text


def test_a_description_that_somebody_wrote_is_kept(bench: Bench, uri: str) -> None:
    from mlflow import MlflowClient

    path = bench.write(name="edited", methods=["none", SFT], tracking={"uri": uri})
    verbs.run(path, inline=True)
    ours, theirs = child(uri, "edited", "none"), child(uri, "edited", "sft")
    MlflowClient(tracking_uri=uri).set_tag(theirs.info.run_id, "mlflow.note.content", "my own words")
    assert tracking.send(bench.folder / "run")
    assert child(uri, "edited", "sft").data.tags["mlflow.note.content"] == "my own words"
    assert child(uri, "edited", "none").data.tags["mlflow.note.content"] == ours.data.tags["mlflow.note.content"]


def test_a_long_ranking_fits_into_a_description_and_says_so() -> None:
    ranking = pd.DataFrame(
        [
            {"rank": number, "model": "m", "method": f"method-{number}", "p_holm": 0.5}
            | dict.fromkeys(("asr", "asr_low", "asr_high", "delta", "delta_low", "delta_high"), 0.25)
            | {"over_refusal": 0.1, "utility": float("nan")}
            for number in range(1, 151)
        ]
    )
    found = SimpleNamespace(ranking=ranking, design=SimpleNamespace(baseline="method-1"))
    text = notes.shootout({"title": "", "name": "long"}, found, "1")
    assert 7000 < len(text) <= notes.LONGEST
    assert text.splitlines()[-1].startswith("| | … and more in `report.md` |")
    assert "| 1 | method-1 | 25.0 [25.0, 25.0] |" in text
    assert text.splitlines()[-1].count("|") == text.splitlines()[-2].count("|") == 8


def test_the_view_of_an_experiment_names_only_what_its_runs_have(
    finished: tuple[Bench, verbs.Outcome], uri: str
) -> None:
    from mlflow import MlflowClient

    view = json.loads(MlflowClient(tracking_uri=uri).get_experiment_by_name("two").tags[overview.TAG])
    run = child(uri, "two", "sft").data
    known = {f"metrics.`{name}`" for name in run.metrics} | {f"tags.`{name}`" for name in run.tags}
    absent = {"metrics.`macro/over_refusal`", "metrics.`macro/utility`"}  # this shootout has one task, of safety
    assert set(view["selectedColumns"]) - known == absent
    assert view["orderByKey"] in known
    drawn = {f"metrics.`{chart['metricKey']}`" for chart in view["compareRunCharts"] if "metricKey" in chart}
    assert drawn - known == absent
    assert {group["groupByData"] for group in view["groupBy"]["groupByKeys"]} <= set(run.params)


def test_the_trials_of_a_selection_become_a_table() -> None:
    selection = {
        "methods": {
            "dpo": {
                "chosen": 1,
                "trials": [
                    {"values": {"beta": 0.1}, "scores": None},
                    {"values": {"beta": 0.3, "layer": "auto"}, "scores": {"asr": 25.0, "utility": 80.0}},
                ],
            }
        }
    }
    first, second = notes.trials(selection).to_dict("records")
    assert (first["settings"], first["chosen"], second["settings"]) == ("beta 0.1", False, "beta 0.3, layer auto")
    assert (second["trial"], second["chosen"], second["asr"], second["utility"]) == (1, True, 25.0, 80.0)
    assert math.isnan(first["asr"])


def test_sending_again_adds_no_run_and_no_point(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    before, ids = history(uri, "two"), {run.info.run_id: run.info.end_time for run in runs(uri, "two")}
    assert tracking.send(finished[0].folder / "run")
    assert history(uri, "two") == before
    assert {run.info.run_id: run.info.end_time for run in runs(uri, "two")} == ids
    assert len(child(uri, "two", "sft").inputs.dataset_inputs) == 4


def test_checkpoints_are_sent_while_the_grid_runs(bench: Bench, uri: str) -> None:
    plugins = bench.plugins(bench.method(TALKS, "talks"), bench.method("raise KeyboardInterrupt"))
    path = bench.write(name="cut", methods=["none", "talks", "odd"], plugins=plugins, tracking={"uri": uri})
    with pytest.raises(KeyboardInterrupt):
        verbs.run(path, inline=True)
    sent = child(uri, "cut", "talks")
    assert sent.info.status == "RUNNING"
    assert sent.data.metrics["train/loss"] == 0.25
    assert "cost/train_seconds" in sent.data.metrics
    assert sent.data.params["talks.marker"] == ""
    assert parent(uri, "cut").info.status == "KILLED"
    bench.method("return start")
    assert verbs.run(path, inline=True).exit_code == 0
    done = child(uri, "cut", "talks")
    assert (done.info.run_id, done.info.status) == (sent.info.run_id, "FINISHED")
    assert parent(uri, "cut").info.status == "FINISHED"
    assert history(uri, "cut")[sent.info.run_id, "train/loss"] == [(1, 0.5), (2, 0.25)]


def test_a_checkpoint_that_the_shootout_no_longer_has_is_marked(bench: Bench, uri: str) -> None:
    plugins = bench.plugins(bench.method("return start"))
    for marker in ("a", "b"):
        methods = ["none", {"use": "odd", "with": {"marker": marker}}]
        path = bench.write(name="changed", methods=methods, plugins=plugins, tracking={"uri": uri})
        assert verbs.run(path, inline=True).exit_code == 0
    found = [run for run in runs(uri, "changed") if run.data.tags.get("mlbench.method") == "odd"]
    marked = {run.data.params["odd.marker"]: run.data.tags.get("mlbench.superseded") for run in found}
    assert marked == {"a": "true", "b": None}
    assert len(runs(uri, "changed")) == 4  # the shootout, none, and both of odd


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_tracker_that_is_down_costs_one_warning_and_all_is_sent_later(
    bench: Bench, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    down = f"http://127.0.0.1:{closed_port()}"
    plugins = bench.plugins(bench.method(TALKS, "talks"))
    path = bench.write(name="down", methods=["none", "talks"], plugins=plugins, tracking={"uri": down})
    outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    assert outcome.report["report.html"].is_file()
    said = capsys.readouterr().err
    assert said.count("MLflow") == 1
    assert f"nothing answers at {down}" in said
    assert "nothing is lost; to send all: mlbench track" in said
    begun = time.monotonic()
    assert not tracking.send(bench.folder / "run")
    assert time.monotonic() - begun < 10
    assert tracking.send(bench.folder / "run", uri)
    assert {"train/loss", "macro/asr", "asr/requests/en"} <= set(child(uri, "down", "talks").data.metrics)


@pytest.fixture
def pages(finished: tuple[Bench, verbs.Outcome]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Return `mlbench ui` as a process of its own, and its address."""
    words = [sys.executable, "-m", "mlbench.cli", "ui", str(finished[0].folder / "run")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    yield process, process.stdout.readline().split()[1]
    process.kill()
    process.wait()
    process.stdout.close()


def processes_with(text: str) -> list[str]:
    """Return the command lines of this machine's processes that name something."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if text in words:
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for left processes in /proc")
def test_the_pages_answer_and_leave_no_process(pages: tuple[subprocess.Popen[str], str], uri: str) -> None:
    process, address = pages
    assert address.startswith("http://127.0.0.1:")
    assert address.endswith(overview.address(child(uri, "two", "sft").info.experiment_id))
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.status == 200
        assert b"MLflow" in answer.read()
    assert processes_with(uri)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert processes_with(uri) == []


def test_pages_of_a_store_that_is_not_there_say_what_to_do(bench: Bench) -> None:
    from mlbench.errors import UserError

    with pytest.raises(UserError, match="no MLflow store"):
        track.serve(f"sqlite:///{bench.folder / 'none.db'}")


def test_a_taken_port_is_refused(finished: tuple[Bench, verbs.Outcome], uri: str) -> None:
    from mlbench.errors import UserError

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="cannot be used"):
            track.serve(uri, other.getsockname()[1])


def test_a_mirror_on_a_server_needs_no_pages_of_ours() -> None:
    said: list[str] = []
    track.serve("https://mlflow.example.org", tell=said.append)
    assert said == ["this run is mirrored to a server with pages of its own: https://mlflow.example.org"]
