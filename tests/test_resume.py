"""A training that is killed and started again ends as one that was left alone: same weights, same curve, same price."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlbench_methods.mlc import MLC
from mlbench_methods.sft import SFT
from torch import nn

from mlbench import jobs, models, tiny, training
from mlbench.core import Checkpoint, Example
from mlbench.corpus import preferences, view
from mlbench.training import answers
from mlbench.training.resume import REST
from mlbench.training.side import Terms

torch.set_num_threads(1)

ROWS = preferences(tiny.corpus(8), "all", benign=True, rejected=True)
STEPS = 6
EVERY = 2
BUDGET = tiny.budget(steps=STEPS, micro_batch=2, schedule="cosine", warmup=0.2)
PENALISED = MLC(every=1, projection_learning_rate=1e-2)


class Killed(Exception):
    """Stands for a process that ends."""


@dataclass(kw_only=True)
class Doomed(tiny.Log):
    """A run that ends when its training logs a step, or when the training is over."""

    ends_at: int = 0

    def log(self, step: int, total: int, **values: float) -> None:
        super().log(step, total, **values)
        if step == self.ends_at:
            raise Killed

    def record(self, **facts: float | str) -> None:
        super().record(**facts)
        if self.ends_at > STEPS and "steps" in facts:
            raise Killed


class RunningMean:
    """Likelihood of the chosen answers, weighted by a running mean and by chance: it has a past and draws numbers."""

    def __init__(self, loaded: models.Loaded, rows: Sequence[Example]) -> None:
        self.dialogues = answers.encode(loaded, rows, [str(row.chosen) for row in rows], 256)
        self.pad = loaded.tokenizer.pad_token_id
        self.mean = torch.zeros(())

    def __call__(self, model: nn.Module, numbers: Sequence[int], step: int) -> Terms:
        found = answers.log_probs(model, [self.dialogues[number] for number in numbers], self.pad)
        loss = -found.means.mean()
        self.mean = 0.5 * self.mean + 0.5 * loss.detach()
        tokens = int(found.tokens.sum())
        return Terms(loss * (1 + self.mean + torch.rand(())), {"mean/value": self.mean.item()}, tokens)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = state_dict["mean"]


def objective(start: Checkpoint, rows: Sequence[Example], run: tiny.Log) -> Checkpoint:
    return training.train(start, rows, run, RunningMean, answers=True)


def penalised(start: Checkpoint, rows: Sequence[Example], run: tiny.Log) -> Checkpoint:
    return PENALISED.align(start, view(tiny.corpus(), PENALISED.needs), run)


Alone = Callable[..., tiny.Log]
Train = Callable[..., Checkpoint]
"""(start model, rows, run) -> the result."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def alone(start: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Return a function that gives a run which nothing disturbs and which saves nothing on its way."""
    done: dict[tuple[str, int], tiny.Log] = {}

    def run(train: Train, lora_rank: int = 0) -> tiny.Log:
        key = (train.__name__, lora_rank)
        if key not in done:
            folder = tmp_path_factory.mktemp("alone") / "run"
            done[key] = tiny.Log(folder=folder, training=replace(BUDGET, lora_rank=lora_rank))
            train(start, ROWS, done[key])
        return done[key]

    return run


def killed(train: Train, start: Checkpoint, folder: Path, at: int, **changes: int) -> Doomed:
    """Return a run that ended in a step, or after the last one."""
    run = Doomed(folder=folder / "run", training=replace(BUDGET, save_every=EVERY, **changes), ends_at=at)
    with pytest.raises(Killed):
        train(start, ROWS, run)
    return run


def again(train: Train, start: Checkpoint, folder: Path, seed: int = 0, **changes: int) -> tiny.Log:
    """Return the second attempt of a run, in the same folders."""
    run = tiny.Log(folder=folder / "run", seed=seed, training=replace(BUDGET, save_every=EVERY, **changes))
    train(start, ROWS, run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


def saves(run: tiny.Log) -> list[str]:
    return sorted(path.name for path in run.scratch.glob("checkpoint-*"))


def assert_same(run: tiny.Log, undisturbed: tiny.Log, resumed_from: int) -> None:
    facts = dict(run.facts)
    assert facts.pop("resumed_from", 0) == resumed_from
    facts.pop("seconds_before", 0)
    assert facts == undisturbed.facts
    assert run.curve == undisturbed.curve
    assert run.read == undisturbed.read
    assert weights(run) == weights(undisturbed)
    assert not run.scratch.exists()


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("train", [training.sft, training.dpo, objective, penalised])
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    start: Checkpoint, alone: Alone, tmp_path: Path, train: Train, lora_rank: int
) -> None:
    expected = alone(train, lora_rank)
    first = killed(train, start, tmp_path, at=5, lora_rank=lora_rank)
    assert saves(first) == ["checkpoint-4"]
    assert_same(again(train, start, tmp_path, lora_rank=lora_rank), expected, resumed_from=4)


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from mlbench import environment, plugins, tiny
from mlbench.core import Checkpoint, Training
from mlbench.corpus import view

environment.prepare()
torch.set_num_threads(1)

class Log(tiny.Log):
    def log(self, step, total, **values):
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

method = plugins.load("method", "mlc")(every=1, projection_learning_rate=1e-2)
run = Log(folder=Path(sys.argv[2]), training=Training(**eval(sys.argv[3])))
method.align(Checkpoint(base=sys.argv[1]), view(tiny.corpus(), method.needs), run)
"""


def test_a_killed_process_is_continued_by_another_one(start: Checkpoint, alone: Alone, tmp_path: Path) -> None:
    expected = alone(penalised)
    budget = repr(vars(replace(BUDGET, save_every=EVERY)))
    command = [sys.executable, "-c", KILLED, start.base, str(tmp_path / "run"), budget]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert_same(again(penalised, start, tmp_path), expected, resumed_from=4)


def test_a_training_killed_twice_counts_its_tokens_once(start: Checkpoint, alone: Alone, tmp_path: Path) -> None:
    expected = alone(training.sft)
    killed(training.sft, start, tmp_path, at=3)
    killed(training.sft, start, tmp_path, at=5)
    assert_same(again(training.sft, start, tmp_path), expected, resumed_from=4)


def test_a_training_killed_after_its_last_step_only_writes_its_result(
    start: Checkpoint, alone: Alone, tmp_path: Path
) -> None:
    expected = alone(training.dpo)
    killed(training.dpo, start, tmp_path, at=STEPS + 1)
    assert_same(again(training.dpo, start, tmp_path), expected, resumed_from=STEPS)


@pytest.mark.parametrize("older", [True, False])
def test_a_half_written_save_does_not_count(start: Checkpoint, alone: Alone, tmp_path: Path, older: bool) -> None:
    expected = alone(training.sft)
    first = killed(training.sft, start, tmp_path, at=3)
    whole, half = first.scratch / "checkpoint-2", first.scratch / "checkpoint-4"
    if older:
        shutil.copytree(whole, half)
    else:
        whole.rename(half)
    (half / REST).unlink()
    (half / "model.safetensors").write_bytes(b"cut sh")
    assert_same(again(training.sft, start, tmp_path), expected, resumed_from=2 if older else 0)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"micro_batch": 4}])
def test_the_save_of_another_training_is_not_taken_up(
    start: Checkpoint, tmp_path: Path, changes: dict[str, int]
) -> None:
    killed(training.sft, start, tmp_path, at=3)
    run = again(training.sft, start, tmp_path, **changes)
    fresh = again(training.sft, start, tmp_path / "fresh", **changes)
    assert "resumed_from" not in run.facts
    assert run.curve == fresh.curve
    assert weights(run) == weights(fresh)


def test_a_save_of_another_start_model_is_not_taken_up(start: Checkpoint, tmp_path: Path) -> None:
    killed(training.sft, start, tmp_path, at=3)
    other = tiny.model(tmp_path / "other", seed=1)
    assert "resumed_from" not in again(training.sft, other, tmp_path).facts


def test_a_resumed_job_counts_the_time_before_it_was_killed(start: Checkpoint, tmp_path: Path) -> None:
    spec = {
        "method": "sft",
        "fields": {},
        "plugin_files": {},
        "seed": 0,
        "training": vars(BUDGET),
        "micro_batch": 2,
        "save_every": EVERY,
    }
    places = jobs.Places(tmp_path / "result", tmp_path / "scratch", tmp_path)
    places.result.mkdir()
    corpus = view(tiny.corpus(), SFT().needs)

    def end(stage: str, done: int, total: int, **values: float) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        jobs.align(spec, start, corpus, places, end)
    kept = places.scratch / "checkpoint-4" / REST
    torch.save(torch.load(kept, weights_only=True) | {"seconds": 1000.0}, kept)
    aligned = jobs.align(spec, start, corpus, places, lambda *_, **__: None)
    assert 1000 < aligned.facts["align_seconds"] < 1100
    assert [point["step"] for point in aligned.curve] == [1, 2, 3, 4, 5, 6]
