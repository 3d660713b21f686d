"""From a run folder to its report: what the plan says, what the jobs found, and what a reader has to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench import caveats, environment
from mlbench.store import Store

if TYPE_CHECKING:
    from mlbench.report import Curve, JudgeCheck
    from mlbench.results import Design, Results


def write_report(
    root: Path, judge: str = "", *, answers: bool = True, folder: Path | None = None
) -> tuple[Mapping[str, Path], Results | None]:
    """Compute the tables of a run folder and write its report; without any verdict there is none.

    Args:
        root: The run folder.
        judge: A judgement besides the planned one; its report lies in report-<judge>.
        answers: Whether the page holds prompts and answers; they may be harmful.
        folder: Where the report is written; default: `report` in the run folder.

    Raises:
        UserError: The folder holds no plan, or no such judgement.
    """
    from mlbench import report, results
    from mlbench.report import answers as browser
    from mlbench.results import frames, health

    store = Store(root)
    data = planned(root, judge)
    rows = frames.verdicts(data, store)
    if rows.empty:
        return {}, None
    curves = frames.curves(data, store)
    computed = results.compute(rows, health.with_losses(frames.jobs(data, store), curves), design(data))
    computed = replace(computed, warnings=(*caveats.caveats(data, store), *computed.warnings))
    sheet = browser.sheet(data, store) if answers else None
    # Other judges and people were compared with the planned judge only.
    checks = () if judge else _checks(root / "report")
    info = replace(_run_info(data, store), answers=sheet, curves=_curves(data, curves), checks=checks)
    return report.write(computed, info, folder or root / (f"report-{judge}" if judge else "report")), computed


def planned(root: Path, judge: str = "") -> dict[str, Any]:
    """Return the plan of a run folder as a report shows it; the arguments are those of `write_report`.

    Raises:
        UserError: The folder holds no plan, or no such judgement.
    """
    from mlbench import rejudge
    from mlbench.results import frames

    data = frames.read_plan(root)
    return frames.marked(rejudge.view(data, rejudge.read(root, judge)) if judge else data)


def design(data: Mapping[str, Any]) -> Design:
    """Return what a plan fixed before any result existed."""
    from mlbench.results import Design
    from mlbench.shootout import Statistics

    statistics = Statistics(**data["statistics"])
    return Design(
        methods=tuple(data["methods"]),
        baseline=data["baseline"],
        references=tuple(data["references"]),
        primary=tuple(label for label, task in data["tasks"].items() if task["kind"] == "safety"),
        pivot=data["pivot"],
        alpha=statistics.alpha,
        resamples=statistics.resamples,
        seed=statistics.seed,
        over_refusal_margin=statistics.over_refusal_margin / 100,
        utility_margin=statistics.utility_margin / 100,
    )


def _run_info(data: Mapping[str, Any], store: Store) -> Any:
    from mlbench.report import MethodInfo, ModelInfo, RunInfo, TaskInfo

    methods = tuple(
        MethodInfo(
            name=label,
            plugin=" + ".join(link["method"] for link in links),
            paper=", ".join(dict.fromkeys(link["paper"] for link in links if link["paper"])),
            fields=_fields(links),
            note=data["about"][label]["note"],
            fidelity=", ".join(data["about"][label]["fidelity"]),
            reported=tuple(data["about"][label]["reported"]),
            citations=tuple(data["about"][label]["citations"]),
        )
        for label, links in data["methods"].items()
    )
    started, finished = _span(data, store)
    return RunInfo(
        name=data["name"],
        title=data["title"],
        shootout_text=(store.root / "shootout.yaml").read_text(encoding="utf-8"),
        shootout_path=data["shootout"],
        command=data["command"],
        versions=data["versions"],
        started=started,
        finished=finished,
        machine=data["machine"],
        folder=environment.shown(store.root),
        methods=methods,
        models=tuple(ModelInfo(**model) for model in data["models"]),
        tasks=tuple(_task_info(label, task, data, TaskInfo) for label, task in data["tasks"].items()),
        plan=dict(Counter(f"{job['kind']} jobs" for job in data["jobs"].values())),
        excluded=(*data["notes"], *data["excluded"]),
        selection=data["selection"],
        gpus=float(data["schedule"]["gpus"]),
        unrecognised=_unrecognised(data),
    )


def _curves(data: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[Curve, ...]:
    """Return what the trainings logged, in the order of the plan; those without a curve are left out."""
    from mlbench.report import Curve

    found: dict[tuple[object, ...], Curve] = {}
    for cell in data["cells"]:
        links = [link["method"] for link in data["methods"][cell["method"]]]
        for link, key in zip(links, cell["chain"], strict=True):
            if curves.get(key):
                place = {name: cell[name] for name in ("model", "method", "seed")}
                found.setdefault((key, *place.values()), Curve(**place, link=link, points=tuple(curves[key])))
    return tuple(found.values())


def _checks(folder: Path) -> tuple[JudgeCheck, ...]:
    """Return what `mlbench judge` and `mlbench label import` have written beside the report."""
    import pandas as pd

    from mlbench.report import JudgeCheck

    paths = [
        *(("agreement", path) for path in sorted(folder.glob("agreement-*.csv"))),
        ("errors", folder / "judge_errors.csv"),
        ("corrected", folder / "corrected_rates.csv"),
    ]
    return tuple(
        JudgeCheck(
            kind=kind,
            name=path.stem.removeprefix("agreement-") if kind == "agreement" else "",
            # A language may be called "no" or "NA".
            lines=tuple(pd.read_csv(path, keep_default_na=False, na_values=[""]).to_dict("records")),
        )
        for kind, path in paths
        if path.is_file()
    )


def _unrecognised(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the languages that language identification does not cover; an organism's oracle needs none."""
    from mlbench import sources
    from mlbench.judges import _language

    real = {model["name"] for model in data["models"] if not model["source"].startswith(sources.ORGANISM)}
    asked = dict.fromkeys(cell["language"] for cell in data["cells"] if cell["model"] in real)
    return tuple(language for language in asked if not _language.covered(language))


def _fields(links: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    prefix = len(links) > 1
    found: dict[str, object] = {}
    for link in links:
        budget = link["training"] if link["effect"] == "training" else {}
        training = {f"training.{name}": at for name, at in budget.items()}
        for name, value in {**link["fields"], **training}.items():
            found[f"{link['method']}.{name}" if prefix else name] = value
    return found


def _task_info(label: str, task: Mapping[str, Any], data: Mapping[str, Any], kind: Any) -> Any:
    cells = [cell for cell in data["cells"] if cell["task"] == label]
    return kind(
        name=label,
        kind=task["kind"],
        source=task["source"],
        licence=task["licence"],
        judge=", ".join(sorted({cell["judge"] for cell in cells})) or task["judge"],
        languages=tuple(dict.fromkeys(cell["language"] for cell in cells)),
        prompts=max((cell["prompts"] for cell in cells), default=0),
        citations=tuple(task["citations"]),
    )


def _span(data: Mapping[str, Any], store: Store) -> tuple[str, str]:
    """Return when the first job started and the last one ended, ISO 8601."""
    found = [status for key in data["jobs"] if (status := store.status(key)) and status.started]
    if not found:
        return "", ""
    ends = (min(status.started for status in found), max(status.started + status.seconds for status in found))
    first, last = (datetime.fromtimestamp(end, UTC).isoformat(timespec="seconds") for end in ends)
    return first, last
