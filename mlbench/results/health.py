"""What may have broken in a training: signs of a model that got safe by falling apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mlbench.results.guards import BROKEN_RISE, TRUNCATED
from mlbench.results.words import number, percent

COLUMNS = (
    *("model", "method", "loss_first", "loss_last", "loss_finite", "weight_change"),
    *("invalid", "truncated", "unparsed", "language_match", "distinct", "tokens", "signs"),
)
RATES = ("invalid", "truncated", "unparsed")
LOSSES = ("loss_first", "loss_last", "loss_finite")
FEWEST = 10
"""A share of distinct answers among fewer than so many says nothing."""
FACTOR = 2
"""Answers so many times shorter, longer or less varied than before are a sign."""
UNREAD = 0.01


def with_losses(jobs: pd.DataFrame, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> pd.DataFrame:
    """Return the jobs with how their loss began and ended: means over the first and the last tenth of the curve."""
    found = {key: _losses([point["loss"] for point in curve if "loss" in point]) for key, curve in curves.items()}
    nothing = dict.fromkeys(LOSSES, math.nan)
    lines = [found.get(key, nothing) for key in jobs["key"]] if len(jobs) else []
    return jobs.assign(**{name: [line[name] for line in lines] for name in LOSSES})


def _losses(loss: Sequence[float]) -> dict[str, float]:
    if not loss:
        return dict.fromkeys(LOSSES, math.nan)
    part = max(1, len(loss) // 10)
    values = np.asarray(loss, dtype=np.float64)
    return {
        "loss_first": float(values[:part].mean()),
        "loss_last": float(values[-part:].mean()),
        "loss_finite": float(np.isfinite(values).all()),
    }


def health(rows: pd.DataFrame, jobs: pd.DataFrame, methods: Sequence[str], untouched: str) -> pd.DataFrame:
    """Return one line per model and method that has answers; `signs` says what looks broken, "" where nothing does.

    The losses are those of the training whose loss fell least, over seeds and links of a chain. Rates are means over
    cells of written answers, choices left out. Among the answers that are no refusals, `language_match` is the share in
    the prompt's language, `distinct` the share of different texts, `tokens` the mean length: a model that refuses more
    is alike, short and often English for a good reason.

    Args:
        rows: The prepared verdict rows; `tokens` and `chance` may be missing.
        jobs: The planned jobs, as `with_losses` returns them or without losses.
        methods: In the order of the shootout.
        untouched: Method that answers with the start checkpoint, "" if there is none.
    """
    written = rows[rows["chance"].isna()] if "chance" in rows else rows
    lines = []
    for model in sorted(set(written["model"])):
        mine = written[written["model"] == model]
        found = {
            method: {"model": model, "method": method, **_training(jobs, model, method), **_answers(part)}
            for method in methods
            if len(part := mine[mine["method"] == method])
        }
        start = found.get(untouched, {})
        lines += [line | {"signs": "; ".join(_signs(line, start))} for line in found.values()]
    return pd.DataFrame(lines, columns=COLUMNS)


def _training(jobs: pd.DataFrame, model: str, method: str) -> dict[str, float]:
    names = (*LOSSES, "weight_change")
    if jobs.empty:
        return dict.fromkeys(names, math.nan)
    mine = (jobs["kind"] == "align") & (jobs["status"] == "done")
    done = jobs[mine & (jobs["model"] == model) & (jobs["method"] == method)].reindex(columns=[*names, "steps"])
    numbers = done.apply(pd.to_numeric)
    logged = numbers[numbers["loss_finite"].notna()]
    worst: Mapping[str, float] = dict.fromkeys(LOSSES, math.nan)
    if len(logged):
        # One that is not finite comes first, then the one that ends highest above its start.
        ratio = (logged["loss_last"] - logged["loss_first"]) / logged["loss_first"].abs()
        worst = logged[list(LOSSES)].loc[ratio.where(logged["loss_finite"] == 1, np.inf).fillna(np.inf).idxmax()]
    trained = numbers[numbers["steps"] > 0]
    change = trained["weight_change"] if len(trained) else numbers["weight_change"]
    return {name: float(worst[name]) for name in LOSSES} | {"weight_change": float(change.min())}


def _answers(rows: pd.DataFrame) -> dict[str, float]:
    cell = ["seed", "task", "language"]
    line = {name: float(rows.groupby(cell)[name].mean().mean()) for name in RATES}
    content = rows[rows["label"] != "refused"]
    texts = content.groupby(cell)["answer_hash"].agg(["nunique", "size"])
    enough = texts[texts["size"] >= FEWEST]
    line["distinct"] = float((enough["nunique"] / enough["size"]).mean())
    line["language_match"] = float(content.groupby(cell)["language_match"].mean().mean())
    line["tokens"] = float(content.groupby(cell)["tokens"].mean().mean()) if "tokens" in rows else math.nan
    return line


def _signs(line: Mapping[str, object], start: Mapping[str, object]) -> Iterator[str]:
    """Yield what looks broken, against the untouched model where there is one."""
    now = {name: number(line[name]) for name in COLUMNS[2:-1]}
    before = {name: number(start.get(name)) for name in now}
    if now["loss_finite"] == 0:
        yield "a loss was not a finite number"
    elif now["loss_last"] >= now["loss_first"]:
        yield "the loss did not fall"
    if now["weight_change"] == 0 and not math.isnan(now["loss_first"]):
        yield "no weight changed"
    for name, what, limit in (("invalid", "invalid", BROKEN_RISE), ("truncated", "cut off", TRUNCATED)):
        if now[name] - _or_zero(before[name]) > limit:
            yield f"{percent(now[name])} % of the answers {what}"
    if now["unparsed"] > UNREAD:
        yield f"{percent(now['unparsed'])} % of the answers not understood by the judge"
    if before["language_match"] - now["language_match"] > BROKEN_RISE:
        yield f"{percent(1 - now['language_match'])} % of what is no refusal not in the prompt’s language"
    if now["distinct"] * FACTOR < before["distinct"]:
        yield f"repeats itself: {percent(now['distinct'])} % different answers, {percent(before['distinct'])} % before"
    if now["tokens"] * FACTOR < before["tokens"] or now["tokens"] > FACTOR * before["tokens"]:
        yield f"answers of {now['tokens']:.0f} tokens, {before['tokens']:.0f} before"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
