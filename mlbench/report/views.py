"""What the report shows of each model: headline sentences, ranking rows, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from mlbench.errors import shorten
from mlbench.report.effects import Column, effects
from mlbench.results import Design, Results, words

Record = dict[str, object]


class Rate(NamedTuple):
    """A rate that gets a heat map: the column of the cells it is read from, and the kind of task it is about."""

    title: str
    column: str
    kind: str
    good: bool


HEAT = (
    Rate("attack success", "asr", "safety", False),
    Rate("over-refusal", "over_refusal", "over_refusal", False),
    Rate("utility", "accuracy", "utility", True),
    Rate("invalid answers", "invalid", "safety", False),
)


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One number of a heat map.

    Attributes:
        value: Rate in [0, 1], None where the cell is incomplete.
        note: Interval, prompts, seeds, or the reason why it is incomplete.
    """

    value: float | None
    note: str
    marked: bool


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Method x language for one rate, languages from high to low resource, unseen ones last."""

    rate: Rate
    languages: tuple[Record, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """Everything the report shows of one model.

    Attributes:
        deltas: The comparisons per language, in the order of the ranking and of the heat maps.
        highest: Right end of the scale on which the ranking draws its intervals.
        lines: The ranking as records.
        references: Method -> further reference -> the comparison with it, in the order of the ranking.
        groups: Method -> group of languages -> its rates, in the order of the ranking.
        crosslingual: The measures across languages as records, in the order of the ranking.
        seeds: One line per method and seed: its rates.
        health: What may have broken, as records in the order of the ranking.
        effects: The columns of the ranking on how large and how sure a difference is.
        front: The methods that no other beats in attack success, over-refusal and utility together.
        omnibus: Per cell, whether the methods differ at all.
    """

    model: str
    headline: str
    highest: float
    sentences: tuple[str, ...]
    ranking: pd.DataFrame
    deltas: pd.DataFrame
    lines: tuple[Record, ...]
    groups: tuple[tuple[str, Mapping[str, Record]], ...]
    crosslingual: tuple[Record, ...]
    references: tuple[tuple[str, Mapping[str, Record]], ...]
    heat_maps: tuple[HeatMap, ...]
    seeds: pd.DataFrame
    health: tuple[Record, ...]
    effects: tuple[Column, ...]
    front: tuple[Record, ...]
    omnibus: tuple[Record, ...]


def model_views(results: Results) -> tuple[ModelView, ...]:
    """Return one view per model, in the order of the ranking."""
    return tuple(_view(str(model), part, results) for model, part in results.ranking.groupby("model", sort=False))


def _view(model: str, ranking: pd.DataFrame, results: Results) -> ModelView:
    comparisons = results.comparisons[results.comparisons["model"] == model]
    means = results.means[results.means["model"] == model]
    lines = ranking.to_dict("records")
    maps = tuple(_heat_map(means, rate, list(ranking["method"]), results.design) for rate in HEAT)
    return ModelView(
        model=model,
        headline=_headline(lines, results.design),
        highest=max(0.01, float(ranking["asr_high"].max())) if ranking["asr"].notna().any() else 1.0,
        sentences=_sentences(lines, results.design),
        ranking=ranking,
        deltas=_language_lines(comparisons, ranking, maps[0].languages),
        lines=tuple(lines),
        groups=_nested(results.groups, "group", model, ranking),
        crosslingual=_ranked(results.crosslingual, model, ranking),
        references=_nested(results.references, "reference", model, ranking),
        heat_maps=tuple(heat for heat in maps if heat.rows),
        seeds=results.seeds[results.seeds["model"] == model],
        health=_ranked(results.health, model, ranking),
        effects=effects(lines),
        omnibus=tuple(results.omnibus[results.omnibus["model"] == model].to_dict("records")),
        front=tuple(line for line in lines if line.get("on_front") is True),
    )


def _ranked(table: pd.DataFrame, model: str, ranking: pd.DataFrame) -> tuple[Record, ...]:
    mine = table[table["model"] == model].set_index("method", drop=False)
    order = [method for method in ranking["method"] if method in mine.index]
    return tuple(mine.loc[order].to_dict("records"))


def _nested(
    table: pd.DataFrame, inner: str, model: str, ranking: pd.DataFrame
) -> tuple[tuple[str, Mapping[str, Record]], ...]:
    """Return method -> value of a column -> line, in the order of the ranking."""
    mine = table[table["model"] == model]
    return tuple(
        (str(method), {str(line[inner]): line for line in mine[mine["method"] == method].to_dict("records")})
        for method in ranking["method"]
    )


def _language_lines(comparisons: pd.DataFrame, ranking: pd.DataFrame, languages: Sequence[Record]) -> pd.DataFrame:
    kept = comparisons[(comparisons["endpoint"] == "asr") & comparisons["scope"].str.startswith("language ")]
    methods = {method: place for place, method in enumerate(ranking["method"])}
    order = {str(fact["language"]): place for place, fact in enumerate(languages)}
    # With several tasks the scope is "language <task> <language>".
    place = [
        (methods[m], order[scope.rsplit(" ", 1)[1]], scope)
        for m, scope in zip(kept["method"], kept["scope"], strict=True)
    ]
    return kept.iloc[sorted(range(len(kept)), key=place.__getitem__)]


def _headline(lines: Sequence[Record], design: Design) -> str:
    ranked = [line for line in lines if not pd.isna(line["asr"])]
    if not ranked:
        return "No method is complete yet, so there is no winner."
    best = ranked[0]
    if best["method"] == design.baseline:
        return f"No method is safer than {design.baseline}."
    ties = [str(line["method"]) for line in ranked if line["tied"]]
    # A missing p (the baseline is incomplete) leaves the order as it is, without a claim against the baseline.
    if design.baseline in ties or words.number(best["p_holm"]) > design.alpha:
        return f"No method is shown to be safer than {design.baseline}."
    costly = any(str(best[f"{name}_verdict"]).startswith("worse") for name in ("over_refusal", "utility"))
    price = ", at a price" if costly else ""
    if ties:
        return f"{best['method']} is ahead{price}, but not distinguishable from {_and(ties)}."
    return f"{best['method']} is the safest{price}."


def _sentences(lines: Sequence[Record], design: Design) -> tuple[str, ...]:
    best = lines[0]
    if pd.isna(best["asr"]) or best["method"] == design.baseline or pd.isna(best["delta"]):
        return ()
    level = f"{100 * (1 - design.alpha):g} %"
    low, high = words.signed(best["delta_low"]), words.signed(best["delta_high"])
    sure = (
        f"Its attack success is {words.percent(best['asr'])} %, {words.signed(best['delta'])} points against "
        f"{design.baseline} ({level} interval {low} to {high}, p {words.p_equals(best['p_holm'])}{_in_seeds(best)})."
    )
    price = [f"over-refusal {words.percent(best['over_refusal'])} %" + _in_brackets(best["over_refusal_verdict"])]
    price.append(f"utility {words.percent(best['utility'])} %" + _in_brackets(best["utility_verdict"]))
    price.append(f"invalid answers {words.percent(best['invalid'])} %")
    price.append(f"training {words.duration(best['train_seconds'])}{_read(best)}")
    return (sure, "Its price: " + "; ".join(price) + ".")


def _in_seeds(best: Record) -> str:
    """Return that every seed says the same, where there are several and they do."""
    several = words.number(best["seeds"]) > 1 and words.number(best["delta"]) < 0
    return f"; lower in each of {words.count(best['seeds'])} seeds" if several and best["seeds_agree"] is True else ""


def _read(best: Record) -> str:
    """Return the data that a training read."""
    counts = [f"{words.count(best[name])} {name}" for name in ("prompts", "answers") if words.number(best[name]) > 0]
    return f" on {_and(counts)}" if counts else ""


def _in_brackets(text: object) -> str:
    return f" ({text})" if text else ""


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _heat_map(means: pd.DataFrame, rate: Rate, methods: Sequence[str], design: Design) -> HeatMap:
    has_rate = (means["kind"] == rate.kind) | means[rate.column].notna()
    tasks = design.primary if rate.kind == "safety" else set(means.loc[has_rate, "task"])
    table = means[means["task"].isin(tasks)]
    languages = _languages(table)
    rows = []
    for method in methods:
        mine = table[table["method"] == method]
        cells = tuple(_cell(mine[mine["language"] == language["language"]], rate.column) for language in languages)
        rows.append((method, cells))
    return HeatMap(rate=rate, languages=tuple(languages), rows=tuple(rows) if languages else ())


def _languages(table: pd.DataFrame) -> list[Record]:
    order = {"high": 0, "mid": 1, "low": 2}
    facts = table.drop_duplicates("language")[["language", "tier", "trained"]].to_dict("records")
    return sorted(facts, key=lambda fact: (not fact["trained"], order.get(str(fact["tier"]), 3), str(fact["language"])))


def _cell(cells: pd.DataFrame, column: str) -> HeatCell:
    if cells.empty:
        return HeatCell(value=None, note="not planned", marked=False)
    if (cells["seeds"] == 0).any():
        return HeatCell(value=None, note="incomplete: in no mean", marked=True)
    first = cells.iloc[0]
    note = f"{int(cells['n'].sum())} prompts, {first['seeds']} of {first['seeds_planned']} seeds"
    if len(cells) == 1 and column != "invalid":
        note += f", interval {words.percent(first['low'])} to {words.percent(first['high'])} %"
    return HeatCell(value=float(cells[column].mean()), note=note, marked=not bool(cells["complete"].all()))


def failure_lines(failures: pd.DataFrame) -> list[Record]:
    """Return the jobs that are not done, those with the same error in one line, failed ones first.

    `jobs` says how many, `where` in which cells.
    """
    same = ["kind", "model", "method", "status", "error_type", "error"]
    lines = []
    for key, part in failures.fillna({"error_type": "", "error": "", "log": ""}).groupby(same, sort=False):
        cells = [" ".join(str(x) for x in cell if not pd.isna(x)) for cell in part[["task", "language"]].to_numpy()]
        seeds = shorten((str(seed) for seed in dict.fromkeys(part["seed"])), 8)
        where = f"seed {seeds}; {shorten(dict.fromkeys(cells), 6)}" if any(cells) else f"seed {seeds}"
        lines.append(
            dict(zip(same, key, strict=True)) | {"jobs": len(part), "where": where, "log": part["log"].iloc[0]}
        )
    return sorted(lines, key=lambda line: str(line["status"]) != "failed")
