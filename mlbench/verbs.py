"""What the command line can do, as functions: `mlbench.run("shootout.yaml")` and its siblings."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench import environment, plan, planner, search, shootout
from mlbench.errors import ConfigError, UserError, Where
from mlbench.store import Store, write_json

if TYPE_CHECKING:
    import pandas as pd

    from mlbench.results import Results

DEMO = Path(__file__).parent / "shootouts" / "demo.yaml"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run leaves behind.

    Attributes:
        exit_code: 0 when every job is done, 1 when some failed.
        ran: Jobs that ran now; the others were there already.
    """

    folder: Path
    report: Mapping[str, Path]
    results: Results | None
    ran: int
    failed: int
    exit_code: int


def make_plan(path: str | Path, overrides: Sequence[str] = ()) -> plan.Plan:
    """Return the plan of a shootout file; nothing is started.

    Settings that are still to be selected have the values that the file gives outside of `search`.

    Raises:
        UserError: Something in the file is wrong.
    """
    loaded = shootout.load(Path(path), overrides)
    if loaded.settings.select:
        planner.make(search.stage(loaded))
    return planner.make(loaded)


def folder_of(made: plan.Plan) -> Path:
    """Return the run folder of a plan: `out`, or reports/<name> in the current folder."""
    settings = made.shootout.settings
    return Path(settings.out or Path("reports") / settings.name).expanduser()


def run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    inline: bool = False,
    ray_address: str | None = None,
) -> Outcome:
    """Run what is missing of a shootout, then mirror, test and report everything there is.

    Args:
        path: The shootout file.
        overrides: `key=value` settings that win over the file.
        inline: Run the same jobs in this process instead of on Ray.
        ray_address: A cluster to use, e.g. "auto" or "ray://host:10001"; by default Ray starts on this machine.

    Raises:
        UserError: Something in the file is wrong; nothing was started.
    """
    environment.prepare()
    made = make_plan(path, overrides)
    root = folder_of(made)
    _refuse_foreign(root, made.shootout.settings.name)
    with _locked(root):
        ran = 0
        store = Store(root)
        _write_plan(made, store)
        if made.shootout.settings.select:
            made, ran = _select(made.shootout, root, inline=inline, ray_address=ray_address)
            _write_plan(made, store)
        ran += _run_missing(made, store, inline=inline, ray_address=ray_address)
        return _conclude(store, ran)


def _select(loaded: shootout.Loaded, root: Path, *, inline: bool, ray_address: str | None) -> tuple[plan.Plan, int]:
    """Run the trials, and return the plan with the selected settings and how many jobs ran."""
    from mlbench import results, selection
    from mlbench.results import frames

    stage = planner.make(search.stage(loaded))
    store = Store(root / "selection")
    _write_plan(stage, store)
    ran = _run_missing(stage, store, inline=inline, ray_address=ray_address)
    data = frames.read_plan(store.root)
    # Only the rates are read; intervals and tests have no part in a selection.
    design = replace(_design(data), resamples=100)
    computed = results.compute(frames.verdicts(data, store), frames.jobs(data, store), design)
    log = selection.choose(loaded, computed.ranking)
    write_json(root / "selection.json", log)
    return replace(planner.make(search.settled(loaded, selection.values(log))), selection=log), ran


def _run_missing(made: plan.Plan, store: Store, *, inline: bool, ray_address: str | None) -> int:
    """Run the jobs of a plan that have no result yet, and return how many ended."""
    from mlbench import schedule, view

    store.clean()
    if all(store.is_done(key) for key in made.jobs):
        return 0
    _prepare_models(made, store)
    settings = schedule.Settings(**made.shootout.settings.schedule.model_dump())
    backend = schedule.Inline() if inline else schedule.RayBackend(settings, ray_address)
    with view.GridView(made.jobs, store) as watch, contextlib.closing(backend):
        grid = schedule.Grid(made.jobs, store, settings, watch.ended, watch.poll)
        grid.run(backend)
        return grid.ended


def _prepare_models(made: plan.Plan, store: Store) -> None:
    """Build the organisms that are not there yet, and ask the acceptance gate before any method runs."""
    from mlbench import sources, view

    failed = {}
    for model in made.models:
        with view.StageBar(f"building {model.name}") as bar:
            sources.fetch(model, bar)
        if found := sources.shortcomings(model):
            failed[model.name] = found
    write_json(store.root / "gate.json", failed)


def _gate_warnings(store: Store) -> tuple[str, ...]:
    path = store.root / "gate.json"
    failed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(
        f"{model} fails its acceptance gate ({'; '.join(criteria)}): it does not show the problem cleanly."
        for model, criteria in failed.items()
    )


def _selection_warnings(log: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which methods did not get the settings that the rule asks for."""
    if not log:
        return ()
    missed = [label for label, found in log["methods"].items() if not found["admissible"]]
    found = [f"{', '.join(log['fixed'])}: settings as given, not selected."] if log["fixed"] else []
    if missed:
        found.append(
            f"{', '.join(missed)}: no trial met the conditions of the selection rule; the one that misses them by "
            "least was taken."
        )
    return tuple(found)


def _conclude(store: Store, ran: int) -> Outcome:
    """Compute and write whatever the finished jobs allow."""
    from mlbench.results import frames

    data = frames.marked(frames.read_plan(store.root))
    table = frames.jobs(data, store)
    failed = int(table.drop_duplicates("key")["status"].ne("done").sum())
    written, results = write_report(store.root)
    if results is not None and data["tracking"]["enabled"]:
        _track(store, data, results, written)
    return Outcome(
        folder=store.root, report=written, results=results, ran=ran, failed=failed, exit_code=1 if failed else 0
    )


def _track(store: Store, data: Mapping[str, Any], results: Results, written: Mapping[str, Path]) -> None:
    """Mirror to MLflow, unless nothing changed since it was mirrored."""
    from mlbench import track
    from mlbench.results import frames

    marker = store.root / "tracked.json"
    uri = data["tracking"]["uri"] or track.default_uri(store.root)
    now = {
        "uri": uri,
        "done": sorted(key for key in data["jobs"] if store.is_done(key)),
        "design": [data["baseline"], data["statistics"]],
    }
    gone = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
    if not gone and marker.is_file() and json.loads(marker.read_text()) == now:
        return
    try:
        track.mirror(
            store.root, data, results, frames.curves(data, store), uri=data["tracking"]["uri"], artifacts=written
        )
    except Exception as error:  # the mirror is never the source of truth: its failure must not cost the report
        print(f"warning: MLflow could not be written: {type(error).__name__}: {error}", file=sys.stderr)
        return
    write_json(marker, now)


def write_report(root: Path) -> tuple[Mapping[str, Path], Results | None]:
    """Compute the tables of a run folder and write its report; without any verdict there is none.

    Raises:
        DataError: The folder holds no plan.
    """
    from mlbench import report, results
    from mlbench.results import frames

    store = Store(root)
    data = frames.marked(frames.read_plan(root))
    rows = frames.verdicts(data, store)
    if rows.empty:
        return {}, None
    computed = results.compute(rows, frames.jobs(data, store), _design(data))
    said = (*_gate_warnings(store), *_selection_warnings(data["selection"]), *computed.warnings)
    computed = replace(computed, warnings=said)
    return report.write(computed, _run_info(data, store), root / "report"), computed


def write_probe(root: Path) -> tuple[Path, pd.DataFrame]:
    """Measure the representations of a run's checkpoints and write them beside its report.

    Raises:
        DataError: The folder holds no plan, or the run asks no harmful and harmless prompts in the pivot.
    """
    from mlbench import probe, view
    from mlbench.results import frames

    environment.prepare()
    data = frames.marked(frames.read_plan(root))
    with view.StageBar("probing") as bar:
        table = probe.probe(data, Store(root), bar)
    path = root / "report" / "representations.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    return path, table


def _design(data: Mapping[str, Any]) -> Any:
    from mlbench.results import Design

    statistics = data["statistics"]
    return Design(
        methods=tuple(data["methods"]),
        baseline=data["baseline"],
        references=tuple(data["references"]),
        primary=tuple(label for label, task in data["tasks"].items() if task["kind"] == "safety"),
        pivot=data["pivot"],
        alpha=statistics["alpha"],
        resamples=statistics["resamples"],
        seed=statistics["seed"],
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
            reported=data["about"][label]["reported"],
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
    )


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
    )


def _span(data: Mapping[str, Any], store: Store) -> tuple[str, str]:
    """Return when the first job started and the last one ended, ISO 8601."""
    found = [status for key in data["jobs"] if (status := store.status(key)) and status.started]
    if not found:
        return "", ""
    ends = (min(status.started for status in found), max(status.started + status.seconds for status in found))
    first, last = (datetime.fromtimestamp(end, UTC).isoformat(timespec="seconds") for end in ends)
    return first, last


def _refuse_foreign(root: Path, name: str) -> None:
    path = root / "plan.json"
    if path.is_file():
        other = json.loads(path.read_text(encoding="utf-8"))["name"]
        if other != name:
            raise ConfigError(
                f"the run folder {str(root)!r} belongs to another shootout, {other!r}",
                where=Where(key="out"),
                hint="choose another folder with --out, or another `name`",
            )
    elif root.is_file() or (root.is_dir() and any(path for path in root.iterdir() if path.name != ".lock")):
        raise ConfigError(
            f"{str(root)!r} exists and is no run folder", where=Where(key="out"), hint="choose another one with --out"
        )


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Keep two drivers out of one run folder."""
    from filelock import FileLock, Timeout

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the run folder {str(root)!r}: {error.strerror}"
        raise ConfigError(message, where=Where(key="out"), hint="choose another one with --out") from error
    lock = FileLock(root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another mlbench is running in {str(root)!r}") from error
    try:
        yield
    finally:
        lock.release()


def _write_plan(made: plan.Plan, store: Store) -> None:
    store.root.mkdir(parents=True, exist_ok=True)
    store.write_data(made.prompts, made.corpora)
    (store.root / "shootout.yaml").write_text(made.shootout.document.text, encoding="utf-8")
    write_json(store.root / "plan.json", plan.as_data(made, command_line()))


def command_line() -> str:
    """Return the command that started this process, as a reader would type it."""
    return " ".join(["mlbench", *sys.argv[1:]])
