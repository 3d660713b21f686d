"""What a report says that is no result: the run, its methods, models and tasks, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbench.report.answers import Sheet


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """A method as the shootout configured it.

    Attributes:
        plugin: Plugin name, or several joined by " + " for a chain.
        paper: "arXiv:2602.16660" or an address; "" if there is none.
        fields: Its hyper-parameters, defaults included.
        note: What it does, and where it deviates from its paper.
        fidelity: What the implementation follows: released code, the paper, a reconstruction, or a standard baseline.
        reported: Numbers of the paper, each with its source, model, metric, method and value; shown apart and never
            ranked with measured ones.
        citations: BibTeX entries.
    """

    name: str
    plugin: str
    paper: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    note: str = ""
    fidelity: str = ""
    reported: tuple[Mapping[str, str | float], ...] = ()
    citations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A base model."""

    name: str
    source: str
    revision: str
    dtype: str


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """An evaluation set.

    Attributes:
        prompts: Prompts per language.
        citations: BibTeX entries.
    """

    name: str
    kind: str
    source: str
    licence: str
    judge: str
    languages: tuple[str, ...]
    prompts: int
    citations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one training logged.

    Attributes:
        link: Plugin of the link, for a method that is a chain; otherwise the method's own.
        points: One mapping per logged step: `step`, `loss` and the method's own terms.
    """

    model: str
    method: str
    link: str
    seed: int
    points: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class JudgeCheck:
    """A table on how far the judge can be trusted.

    Attributes:
        kind: "agreement" with another judge, "errors" against people's labels, or "corrected" rates.
        name: The other judge's, "" without one.
        lines: The table, one mapping per line.
    """

    kind: str
    name: str
    lines: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Everything a report says that is not a result.

    Attributes:
        shootout_text: The shootout file, word for word.
        command: The one command that reproduces the run.
        versions: Package or tool -> version.
        started: ISO 8601, as is `finished`; "" while the run goes on.
        machine: Processor, memory and accelerators in words.
        plan: What was planned, in words -> size, e.g. {"trainings": 18}.
        excluded: What the plan left out, with the reason.
        selection: Every trial by which settings were selected, see `selection.choose`; empty where none were.
        gpus: GPUs of each training, 0 without.
        curves: What the trainings logged.
        checks: Other judges and people on the same answers.
        answers: What the browser of answers shows; None for a page without answers.
        unrecognised: Languages in which the language of an answer cannot be recognised.
    """

    name: str
    title: str
    shootout_text: str
    shootout_path: str
    command: str
    versions: Mapping[str, str]
    started: str
    finished: str
    machine: str
    folder: str
    methods: tuple[MethodInfo, ...]
    models: tuple[ModelInfo, ...]
    tasks: tuple[TaskInfo, ...]
    plan: Mapping[str, int] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)
    gpus: float = 0.0
    curves: tuple[Curve, ...] = ()
    checks: tuple[JudgeCheck, ...] = ()
    unrecognised: tuple[str, ...] = ()
    answers: Sheet | None = None
