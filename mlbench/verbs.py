"""What the command line can do, as functions: `mlbench.run("shootout.yaml")` and its siblings."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbench import environment, plan, planner, reporting, search, shootout, sketch, tracking
from mlbench.errors import ConfigError, JobError, UserError, Where
from mlbench.store import Status, Store, write_json

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


def make_plan(path: str | Path, overrides: Sequence[str] = (), *, sketched: bool = False) -> plan.Plan:
    """Return the plan of a shootout file; nothing is started.

    With `sketched` models and data that are not on this machine are stood in for. Settings that are still to be
    selected have the values that the file gives outside of `search`.

    Raises:
        UserError: Something in the file is wrong.
    """
    loaded = shootout.load(Path(path), overrides)
    stand_in = sketch.Sketch() if sketched else None
    made = planner.make(loaded, stand_in)
    if loaded.settings.select:
        planner.make(search.stage(loaded), stand_in)  # refuses a wrong trial now, not after hours
    return made


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
        uri = tracking.address(root, made.shootout.settings.tracking.model_dump())
        ran += _run_missing(made, store, inline=inline, ray_address=ray_address, uri=uri)
        return _conclude(store, ran)


def _select(loaded: shootout.Loaded, root: Path, *, inline: bool, ray_address: str | None) -> tuple[plan.Plan, int]:
    """Run the trials, and return the plan with the selected settings and how many jobs ran."""
    from mlbench import results, selection
    from mlbench.results import frames

    stage = planner.make(search.stage(loaded))
    store = Store(root / "selection")
    _write_plan(stage, store)
    ran = _run_missing(stage, store, inline=inline, ray_address=ray_address)
    # The same trials with the same verdicts and rule pick the same settings.
    key = plan.digest([loaded.settings.select.model_dump() if loaded.settings.select else {}, sorted(stage.jobs)])
    log = _read_log(root, key) if ran == 0 else None
    if log is None:
        data = frames.read_plan(store.root)
        rates = results.rates(frames.verdicts(data, store), frames.jobs(data, store), reporting.design(data))
        log = selection.choose(loaded, rates) | {"key": key}
        write_json(root / "selection.json", log)
    return replace(planner.make(search.settled(loaded, selection.values(log))), selection=log), ran


def _read_log(root: Path, key: str) -> dict[str, Any] | None:
    path = root / "selection.json"
    log: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return log if log.get("key") == key else None


def _run_missing(
    made: plan.Plan, store: Store, *, inline: bool, ray_address: str | None, uri: str | None = None
) -> int:
    """Run the jobs of a plan that have no result yet, mirrored to MLflow at `uri`, and return how many ended."""
    store.clean()
    if all(store.is_done(key) for key in made.jobs):
        return 0
    _prepare_models(made, store)
    settings = made.shootout.settings.schedule.model_dump()
    return _run_jobs(made.jobs, store, settings, inline=inline, ray_address=ray_address, uri=uri)


def _run_jobs(
    jobs: Mapping[str, plan.Job],
    store: Store,
    settings: Mapping[str, Any],
    *,
    inline: bool,
    ray_address: str | None,
    uri: str | None = None,
) -> int:
    from mlbench import schedule, track, view

    if all(store.is_done(key) for key in jobs):
        return 0
    given = schedule.Settings(**settings)
    backend = schedule.Inline() if inline else schedule.RayBackend(given, ray_address)
    live = track.Live(store.root, uri=uri) if uri else contextlib.nullcontext()
    with contextlib.closing(backend), live as mirror, view.GridView(jobs, store) as watch:

        def ended(job: plan.Job, status: Status) -> None:
            watch.ended(job, status)
            if mirror is not None:
                mirror.ended(job, status)

        grid = schedule.Grid(jobs, store, given, ended, watch.poll)
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


def _conclude(store: Store, ran: int) -> Outcome:
    """Compute and write whatever the finished jobs allow."""
    from mlbench.results import frames

    data = frames.marked(frames.read_plan(store.root))
    table = frames.jobs(data, store)
    failed = int(table.drop_duplicates("key")["status"].ne("done").sum())
    written, results = reporting.write_report(store.root)
    if data["tracking"]["enabled"]:
        tracking.update(store, data, results, written)
    return Outcome(
        folder=store.root, report=written, results=results, ran=ran, failed=failed, exit_code=1 if failed else 0
    )


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


def judge(
    root: Path, judge: str, fields: Mapping[str, Any], *, name: str = "", inline: bool = False
) -> tuple[pd.DataFrame, int]:
    """Judge the stored answers of a run once more and return how the judges agree per language, and failed jobs.

    Raises:
        UserError: The judge or a field does not exist, or the folder holds no plan.
    """
    from mlbench import agreement, rejudge
    from mlbench.results import frames

    environment.prepare()
    data, store = frames.read_plan(root), Store(root)
    with _locked(root):
        record = rejudge.make(data, store, name or judge, judge, fields)
        jobs = {key: plan.Job(**job) for key, job in record["jobs"].items() if store.is_done(job["after"][0])}
        _run_jobs(jobs, store, data["schedule"], inline=inline, ray_address=None)
        failed = sum(not store.is_done(key) for key in jobs)
        if failed == len(jobs):
            raise JobError(f"none of {failed} cells could be judged; the same command tries them again")
        rows = rejudge.labels(data, store, record)
        table = agreement.compare(rows[rows["kind"] == "safety"], "planned", "second", cluster="source")
        folder = root / "report"
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / f"agreement-{record['name']}.csv", index=False)
        return table, failed


def export_labels(root: Path, path: Path, *, size: int, seed: int) -> int:
    """Write a sample of a run's answers for people to label, and return how many there are.

    Raises:
        UserError: The folder holds no judged answer, or the file exists already.
    """
    from mlbench import labelling
    from mlbench.results import frames

    if path.exists():
        raise UserError(f"{str(path)!r} exists already, perhaps with labels in it", hint="choose another name")
    return labelling.export(frames.read_plan(root), Store(root), path, size=size, seed=seed)


def import_labels(root: Path, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the judge's errors against people's labels and the corrected rates; both lie in the report folder too.

    Raises:
        UserError: The file or a label in it is wrong, or its rows are not of this run.
    """
    from mlbench import labelling
    from mlbench.results import frames

    data = frames.read_plan(root)
    errors, rates = labelling.error(labelling.judged(data, Store(root), labelling.read(path)))
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    errors.to_csv(folder / "judge_errors.csv", index=False)
    rates.to_csv(folder / "corrected_rates.csv", index=False)
    return errors, rates


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


def validate_judge(judge: str, fields: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """Return how well a judge finds the refusals among XSTest's answers, against people's labels.

    Raises:
        UserError: The judge or a field does not exist, or a file of XSTest is missing.
    """
    from mlbench import agreement, rejudge

    return agreement.validate(rejudge.load(judge, fields), agreement.xstest(folder))


def translate(path: str | Path, overrides: Sequence[str] = (), *, as_json: bool = False) -> str:
    """Fill the missing languages of a corpus, and return what was done, in words or as JSON.

    Raises:
        UserError: Something in the file is wrong; nothing was translated.
    """
    from mlbench import translate, view

    environment.prepare()
    with view.StageBar("translating") as bar:
        outcome = translate.run(Path(path), overrides, bar)
    return json.dumps(translate.summary(outcome), indent=1) if as_json else translate.words(outcome)
