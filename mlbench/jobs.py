"""The three kinds of work as functions of plain data: no Ray, no MLflow, no run folder."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from mlbench import plugins
from mlbench.core import Answer, Checkpoint, Corpus, Example, Label, Prompt, Training, Verdict
from mlbench.errors import JobError, PluginError

if TYPE_CHECKING:
    from mlbench.backends.order import Answered

Report = Callable[..., None]
"""report(stage, done, total, **values): progress that somebody may watch."""


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Result of an align job: the checkpoint, what it cost, and the training curve."""

    checkpoint: Checkpoint
    facts: dict[str, Any]
    curve: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class AlignRun:
    """The `core.Run` that a method gets."""

    seed: int
    folder: Path
    scratch: Path
    shared: Path
    training: Training
    report: Report
    curve: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: {"prompts": set(), "answers": set()})

    def log(self, step: int, total: int, **values: float) -> None:
        """Record one point of the training curve.

        Raises:
            JobError: A value is not finite; a training that diverged must not become a result.
        """
        numbers = {name: float(value) for name, value in values.items()}  # a tensor or a numpy scalar is no JSON
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise JobError(f"{name} is {value} at step {step} of {total}: the training diverged")
        self.curve.append({"step": step, **numbers})
        self.report("training", step, total, **numbers)

    def consume(self, rows: Iterable[Example], *, answers: bool) -> None:
        """Count the rows read, and their answers, by language."""
        for row in rows:
            self.seen["prompts"].add((row.language, row.id))
            if answers:
                self.seen["answers"].add((row.language, row.id))

    def record(self, **facts: float | str) -> None:
        """Record further facts."""
        self.facts.update({name: fact if isinstance(fact, (str, int)) else float(fact) for name, fact in facts.items()})


class Places(NamedTuple):
    """Folders of an align job: for its result, for what it resumes from, and for what several jobs share."""

    result: Path
    scratch: Path
    shared: Path


def align(spec: Mapping[str, Any], start: Checkpoint, corpus: Corpus, places: Places, report: Report) -> Aligned:
    """Return the checkpoint that a method makes of `start`.

    Training that does not fit into memory is tried again with half the micro-batch; the optimiser step stays the same.
    """
    method = _method(spec)
    training = Training(**(spec["training"] or {}))
    for micro_batch in _halvings(spec["micro_batch"] or training.batch_size):
        run = AlignRun(
            seed=spec["seed"],
            folder=places.result,
            scratch=places.scratch,
            shared=places.shared,
            training=Training(**asdict(training) | {"micro_batch": micro_batch, "save_every": spec["save_every"]}),
            report=report,
        )
        started = time.monotonic()
        try:
            checkpoint = method.align(start, corpus, run)
        except (MemoryError, RuntimeError) as error:
            if micro_batch == 1 or not _out_of_memory(error):
                raise
            _empty(places.result)
            shutil.rmtree(places.scratch, ignore_errors=True)
            continue
        if not isinstance(checkpoint, Checkpoint):
            raise PluginError(f"align of {spec['method']!r} returned {checkpoint!r}, which is no Checkpoint")
        counts = {name: _by_language(pairs) for name, pairs in run.seen.items()}
        # A training that went on after a kill took the time before it as well.
        seconds = time.monotonic() - started + run.facts.get("seconds_before", 0.0)
        facts = {"micro_batch": micro_batch, "align_seconds": seconds, **run.facts, **counts}
        return Aligned(checkpoint=checkpoint, facts=facts, curve=run.curve)
    raise AssertionError("unreachable: the last halving either returns or raises")


def _method(spec: Mapping[str, Any]) -> Any:
    plugins.add_files("method", spec["plugin_files"])
    return plugins.load("method", spec["method"])(**spec["fields"])


def _out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; named by its class so that nothing here imports torch.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _halvings(size: int) -> Iterator[int]:
    while size > 1:
        yield size
        size //= 2
    yield 1


def _by_language(pairs: set[tuple[str, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for language, _ in sorted(pairs):
        counts[language] = counts.get(language, 0) + 1
    return counts


def answer(spec: Mapping[str, Any], checkpoint: Checkpoint, prompts: Sequence[Prompt], report: Report) -> Answered:
    """Return the answers to each prompt, in order, or the likeliest choice where there are choices; and their facts."""
    from mlbench import backends

    if "task" in spec:
        return _asked(spec, checkpoint, prompts, report)

    def show(done: int, total: int) -> None:
        report("answering", done, total)

    return backends.answer(spec, checkpoint, prompts, show)


def _asked(spec: Mapping[str, Any], checkpoint: Checkpoint, prompts: Sequence[Prompt], report: Report) -> Answered:
    """Return the answers of a task that asks the model itself; what does not fit into memory is asked in halves.

    Raises:
        JobError: What the task runs differs from what the plan was made with.
        PluginError: The task did not return one answer per prompt.
    """
    from mlbench.backends.order import Answered
    from mlbench.backends.transformers_ import ready
    from mlbench.models import instructed

    plugins.add_files("task", spec["plugin_files"])
    task = plugins.load("task", spec["task"])(**spec["task_fields"])
    if task.fingerprint(prompts[0].language) != spec["fingerprint"]:
        raise JobError(f"what the task {spec['task']!r} runs is not on this worker as it was when the plan was made")
    loaded = ready(instructed(checkpoint, spec["system_prompt"]))
    report("answering", 0, len(prompts))
    for batch_size in _halvings(spec["batch_size"]):
        try:
            answers = task.answer(loaded, prompts, max_new_tokens=spec["max_new_tokens"], batch_size=batch_size)
        except (MemoryError, RuntimeError) as error:
            if batch_size == 1 or not _out_of_memory(error):
                raise
            continue
        if [answer.prompt for answer in answers] != list(prompts):
            raise PluginError(f"the task {spec['task']!r} did not return one answer per prompt, in their order")
        return Answered(answers, {"backend": "transformers"})
    raise AssertionError("unreachable: the last halving either returns or raises")


def loads() -> int:
    """Return how many checkpoints this process has loaded for answering."""
    from mlbench.backends import transformers_

    return transformers_.loads()


class Judged(NamedTuple):
    """Result of a judge job: one verdict per answer, what they depend on besides the judge's code, what they cost."""

    verdicts: list[Verdict]
    provenance: dict[str, str]
    costs: dict[str, float]


def judge(spec: Mapping[str, Any], answers: Sequence[Answer], report: Report) -> Judged:
    """Return one verdict per answer, in order.

    Raises:
        PluginError: The judge did not return one verdict with a known label per answer.
    """
    plugins.add_files("judge", spec["plugin_files"])
    made = plugins.load("judge", spec["judge"])(**spec["fields"])
    verdicts = list(made.grade(answers))
    if len(verdicts) != len(answers):
        raise PluginError(f"judge {spec['judge']!r} gave {len(verdicts)} verdicts for {len(answers)} answers")
    for verdict in verdicts:
        if verdict.label not in get_args(Label):
            raise PluginError(f"judge {spec['judge']!r} gave the label {verdict.label!r}", allowed=get_args(Label))
    report("judging", len(answers), len(answers))
    provenance = made.provenance() if hasattr(made, "provenance") else {}
    costs = made.costs() if hasattr(made, "costs") else {}
    return Judged(verdicts, dict(provenance), dict(costs))
