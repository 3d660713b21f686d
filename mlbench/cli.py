"""The command line: verbs only. Results go to stdout, progress and errors to stderr.

Exit codes: 0 done, 1 finished with failed jobs (the report is written all the same), 2 wrong usage, file or plugin,
130 interrupted (what is finished is kept).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mlbench import __version__, cli_organism, cli_track, environment
from mlbench.errors import JobError, UserError

INTERRUPTED = 130
WIDE = 112
"""Columns of a ranking with intervals, besides its names."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_organism.organism, name="organism")
label = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="People's labels: how far is the judge right?")
app.add_typer(label, name="label")

Shootout = Annotated[Path, typer.Argument(help="The shootout file, YAML.", metavar="SHOOTOUT.YAML")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, e.g. reports/demo.", metavar="RUN")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key of the file, e.g. --set training.steps=100."),
]
Out = Annotated[str | None, typer.Option("--out", help="Run folder; default reports/<name>.")]
InlineFlag = Annotated[bool, typer.Option("--inline", help="Run the same jobs in this process, without Ray.")]
Ray = Annotated[str | None, typer.Option("--ray-address", help="A Ray cluster, e.g. auto or ray://host:10001.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="First N prompts per cell; marks all rows partial.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def main() -> None:
    """Run the command line; user errors take one screen and exit code 2."""
    environment.prepare()
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except JobError as error:  # the jobs that everything else waits for have failed
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has caught the KeyboardInterrupt
            print("interrupted: finished jobs are kept; the same command continues", file=sys.stderr)
        raise


@app.callback(invoke_without_command=True)
def about_mlbench(
    version: Annotated[bool, typer.Option("--version", help="Print the version and nothing else.")] = False,
) -> None:
    """Which method makes a language model safe in every language, and at what price?

    Start with:  mlbench demo        (five methods on a model built here, about three minutes)

    Then:  mlbench list methods  |  mlbench show mlc  |  mlbench run my-shootout.yaml
    """
    if version:
        print(__version__)
        raise typer.Exit()


def _overrides(settings: list[str] | None, out: str | None, limit: int | None) -> list[str]:
    flags = {"out": out, "limit": limit}
    return [*(settings or []), *(f"{name}={json.dumps(value)}" for name, value in flags.items() if value is not None)]


@app.command()
def demo(out: Out = None, inline: InlineFlag = False, limit: Limit = None) -> None:
    """Five methods on the model organism, from building the model to the report.

    Example:  mlbench demo --out /tmp/demo
    """
    from mlbench import verbs

    _finish(verbs.run(verbs.DEMO, _overrides(None, out, limit), inline=inline))


@app.command()
def run(
    shootout: Shootout,
    settings: Set = None,
    out: Out = None,
    inline: InlineFlag = False,
    ray_address: Ray = None,
    limit: Limit = None,
) -> None:
    """Run what is missing of a shootout, then test, mirror to MLflow and report.

    The same command continues after an interruption and does nothing when all is there.

    Example:  mlbench run my-shootout.yaml --set seeds=[0,1,2]
    """
    from mlbench import verbs

    _finish(verbs.run(shootout, _overrides(settings, out, limit), inline=inline, ray_address=ray_address))


def _finish(outcome: Any) -> None:
    if outcome.results is not None:
        _print_results(outcome.results)
    print(f"{outcome.ran} jobs ran, {outcome.failed} failed or left; run folder {environment.shown(outcome.folder)}")
    if outcome.failed:
        print(f"what failed: mlbench status {environment.shown(outcome.folder)}")
    if "report.html" in outcome.report:
        print(f"report: {environment.shown(outcome.report['report.html'])}")
    raise typer.Exit(outcome.exit_code)


def _print_results(results: Any) -> None:
    from rich.console import Console

    from mlbench import report

    ranking = results.ranking
    models = max(map(len, ranking["model"])) if ranking["model"].nunique() > 1 else 0
    widest = WIDE + max(map(len, ranking["method"])) + models
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(120, widest))
    console.print("Attack success, macro over all languages (lower is safer)")
    console.print(report.terminal(results, wide=console.width >= widest))
    for sentence in report.verdicts(results):
        print(sentence)
    for warning in results.warnings:
        print(f"warning: {warning}")


@app.command()
def plan(shootout: Shootout, settings: Set = None, out: Out = None, limit: Limit = None, as_json: Json = False) -> None:
    """Show what a shootout would do: jobs, what is there already, exclusions, detectable effect. Starts nothing.

    Example:  mlbench plan my-shootout.yaml
    """
    from mlbench import describe, verbs

    made = verbs.make_plan(shootout, _overrides(settings, out, limit), sketched=True)
    summary = describe.of_plan(made, verbs.folder_of(made))
    print(json.dumps(summary, indent=1) if as_json else describe.plan_text(summary))


cli_track.register(app)


@app.command()
def report(
    folder: RunFolder,
    other: Annotated[
        Path | None, typer.Argument(help="A second run folder to compare with the first.", metavar="[OTHER]")
    ] = None,
    judge: Annotated[str, typer.Option(help="Report by this judgement of `mlbench judge` instead.")] = "",
    answers: Annotated[
        bool, typer.Option("--answers/--no-answers", help="Show prompts and answers; they may be harmful.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write to this folder instead.")] = None,
) -> None:
    """Compute the tables of a run folder again and write its report; with a second run, compare the two.

    Example:  mlbench report reports/demo

    Example:  mlbench report reports/demo reports/demo-again
    """
    if other is not None:
        return _report_versus(folder, other, judge, out)
    from mlbench import reporting

    written, results = reporting.write_report(folder, judge, answers=answers, folder=out)
    if results is None:
        raise UserError(f"no cell of {folder} is finished yet", hint=f"see: mlbench status {folder}")
    _print_results(results)
    print(f"report: {environment.shown(written['report.html'])}")


def _report_versus(one: Path, two: Path, judge: str, out: Path | None) -> None:
    from mlbench import report as pages
    from mlbench import versus

    written, found = versus.write(one, two, judge=judge, folder=out)
    print(pages.summary(found))
    print(f"report: {environment.shown(written['versus.html'])}")


@app.command()
def judge(
    folder: RunFolder,
    judge: Annotated[str, typer.Option(help="A judge; see `mlbench list judges`.")],
    fields: Annotated[list[str] | None, typer.Option("--with", metavar="FIELD=VALUE", help="Of the judge.")] = None,
    name: Annotated[str, typer.Option("--as", help="Name of this judgement; default: the judge's.")] = "",
    inline: InlineFlag = False,
) -> None:
    """Judge the stored answers of a run once more, without writing any again, and compare with the planned judge.

    Example:  mlbench judge reports/demo --judge guard --with source=./Qwen3Guard-Gen-4B
              mlbench report reports/demo --judge guard
    """
    from mlbench import verbs

    table, failed = verbs.judge(folder, judge, _fields(fields), name=name, inline=inline)
    print("whether an answer is unsafe: the planned judge (first) and this one (second)")
    print(table.round(3).to_string(index=False, na_rep="–"))
    if failed:
        print(f"{failed} cells could not be judged; the same command tries them again")
    raise typer.Exit(1 if failed else 0)


def _fields(settings: list[str] | None) -> dict[str, Any]:
    from ruamel.yaml import YAML

    found = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--with takes field=value, got {setting!r}", hint="for example --with batch_size=8")
        found[name] = YAML(typ="safe").load(value)
    return found


@label.command("export")
def label_export(
    folder: RunFolder,
    out: Annotated[Path, typer.Option(help="The spreadsheet to write.")] = Path("labels.csv"),
    size: Annotated[int, typer.Option(min=2, help="Answers for each method, language and verdict.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
) -> None:
    """Draw answers for people to label, as a CSV file for any spreadsheet program. It holds harmful text.

    Write refused, complied_safe, unsafe or invalid into the column `human`; leave it empty where you did not look.

    Example:  mlbench label export reports/demo --size 5 --out labels.csv
    """
    from mlbench import verbs

    print(f"{verbs.export_labels(folder, out, size=size, seed=seed)} answers written to {out}")


@label.command("import")
def label_import(
    folder: RunFolder,
    file: Annotated[Path, typer.Argument(help="The filled spreadsheet.", metavar="LABELS.CSV")],
) -> None:
    """Compare the judge with people's labels: its errors per method and tier, and attack success corrected for them.

    Example:  mlbench label import reports/demo labels.csv
    """
    from mlbench import verbs

    errors, rates = verbs.import_labels(folder, file)
    print("the judge against people, share of unsafe answers it finds (sensitivity) and of others it spares")
    print(errors.round(3).to_string(index=False))
    print("attack success by the judge, by Rogan-Gladen, and prediction-powered")
    print(rates.round(3).to_string(index=False))


@label.command("validate")
def label_validate(
    judge: Annotated[str, typer.Option(help="A judge; see `mlbench list judges`.")],
    xstest: Annotated[Path, typer.Option(help="Folder with XSTest's completions and people's labels of them.")],
    fields: Annotated[list[str] | None, typer.Option("--with", metavar="FIELD=VALUE", help="Of the judge.")] = None,
) -> None:
    """Ask a judge which of XSTest's answers refuse, and compare with people's labels: kappa for each of five models.

    Example:  mlbench label validate --judge refusal --with phrases=xstest --xstest path/to/human_labelled
    """
    from mlbench import verbs

    table = verbs.validate_judge(judge, _fields(fields), xstest)
    print(table.round(3).to_string(index=False, na_rep="–"))


@app.command()
def probe(folder: RunFolder) -> None:
    """Measure what each method did to its model's representations; writes report/representations.csv.

    A diagnosis, never a safety result.

    Example:  mlbench probe reports/demo
    """
    from mlbench import verbs

    path, table = verbs.write_probe(folder)
    last = table[table["layer"] == table.groupby("model")["layer"].transform("max")]
    measures = ["pivot_cosine", "between", "class_share", "transfer"]
    print("last layer, mean over seeds and languages without the pivot (all layers and languages are in the file)")
    print(last[last["pivot_cosine"] < 1].groupby(["model", "method"], sort=False)[measures].mean().round(3).to_string())
    print(f"written: {environment.shown(path)}")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, judges or models.")] = "methods", as_json: Json = False
) -> None:
    """List what is installed; what cannot be imported is shown with the reason.

    Example:  mlbench list tasks
    """
    from mlbench import catalogue

    rows = catalogue.listing(what)
    print(json.dumps(rows, indent=1) if as_json else catalogue.listing_text(rows))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method, task or judge.")], as_json: Json = False) -> None:
    """Show a plugin: what it is, its fields with types and defaults, what it needs, where it lives.

    Example:  mlbench show mlc
    """
    from mlbench import catalogue

    about = catalogue.about(name)
    print(json.dumps(about, indent=1, default=str) if as_json else catalogue.about_text(about))


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Plugins to check; default: all.")] = None,
    file: Annotated[str | None, typer.Option("--plugin", metavar="KIND:FILE", help="e.g. method:my_method.py")] = None,
) -> None:
    """Check that plugins keep their contract, on tiny random models on this machine. Exit code 2 when one does not.

    Example:  mlbench check mlc
              mlbench check --plugin method:my_method.py
    """
    from mlbench import catalogue

    findings = catalogue.check(names or [], file)
    raise typer.Exit(2 if any(not finding.passed for finding in findings) else 0)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, cores, memory, GPUs, cache, and what does not fit together; paste it into bug reports.

    Example:  mlbench doctor
    """
    from mlbench import describe

    facts = describe.doctor()
    print(json.dumps(facts, indent=1) if as_json else describe.facts_text(facts))


@app.command()
def translate(
    config: Annotated[Path, typer.Argument(metavar="CORPUS.YAML")], settings: Set = None, as_json: Json = False
) -> None:
    """Fill the missing languages of a corpus or prompt file by machine translation, and flag what to distrust.

    Example:  mlbench translate corpus.yaml
    """
    from mlbench import verbs

    print(verbs.translate(config, settings or [], as_json=as_json))


@app.command()
def compare(
    folder: RunFolder,
    baseline: Annotated[str, typer.Option(help="Compare with this method; default: the plan's baseline.")] = "",
    metric: Annotated[str, typer.Option(help="asr, over_refusal or utility.")] = "asr",
    by: Annotated[str, typer.Option(help="language, tier or task; default: everything in one rate.")] = "",
    judge: Annotated[str, typer.Option(help="By this judgement of `mlbench judge` instead.")] = "",
    csv: Annotated[Path | None, typer.Option(help="Write the table here as well.")] = None,
    as_json: Json = False,
) -> None:
    """Compare every method with one of them: difference, interval, p-values, and what the design could have seen.

    Example:  mlbench compare reports/demo --baseline dpo --by tier
    """
    from mlbench import compare as comparing

    found = comparing.compare(folder, baseline=baseline, metric=metric, by=by, judge=judge)
    if csv:
        found.table.to_csv(csv, index=False)
    print(json.dumps(comparing.as_data(found), indent=1) if as_json else comparing.text(found))


if __name__ == "__main__":
    main()
