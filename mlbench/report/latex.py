"""Tables for papers: complete LaTeX floats that need `booktabs` and nothing else.

The files are plain ASCII, so that any engine and any font encoding sets them: accented Latin letters become LaTeX's
accent commands, and a letter of another script, which pdflatex's standard fonts lack, is written as its code point.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mlbench.report.info import RunInfo
from mlbench.report.page import CROSSLINGUAL
from mlbench.report.terminal import interval
from mlbench.report.views import HeatCell, HeatMap, ModelView
from mlbench.results import Results, words
from mlbench.results.groups import GROUPS

MEASURES = {
    **{"worst": "Worst", "pivot_gap": "Gap", "variance": "Variance", "any_language": "Any", "loophole": "Loophole"},
    **{"agreement": "Agreement", "kappa": "κ"},
}
"""Short headings of `page.CROSSLINGUAL`."""
WIDEST = 8
"""Languages side by side; a table of more languages becomes several."""

SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"},
    **{'"': "''", "\0": "{}"},
    **{"−": "$-$", "–": "--", "—": "---", "×": r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "…": r"\dots{}"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "†": r"$\dagger$", "κ": r"$\kappa$", "’": "'", "‘": "{`}", "“": "``", "”": "''"},
    **{"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "ł": r"\l{}"},
}
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c",
}  # fmt: skip


class Bold(str):
    """A cell to be set in bold."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in plain text; it is escaped where it becomes LaTeX.

    Attributes:
        name: What it is about; its file and its label are named so.
        spans: Headings above the headings, each with the number of columns it spans; "" for none.
        heading: One per column; the first one is that of the row names.
        rows: Entries, the row's name first; `Bold` ones are set in bold.
        notes: What a reader needs to know, below the table.
    """

    name: str
    caption: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    spans: tuple[tuple[str, int], ...] = ()


def tex(text: object) -> str:
    """Return text that LaTeX sets as it is, whatever it holds."""
    # Two hyphens in a row would be set as a dash.
    kept = re.sub("-(?=-)", "-\0", " ".join(str(text).split()))
    return "".join(SIGNS.get(sign) or _letter(sign) for sign in kept)


def _letter(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else f"(U+{ord(sign):04X})"
    base, *accents = list(unicodedata.normalize("NFD", sign))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in ACCENTS:
        return f"\\{ACCENTS[accents[0]]}{{{base}}}"
    return f"(U+{ord(sign):04X})"


def tables(results: Results, run: RunInfo, view: ModelView) -> tuple[Table, ...]:
    """Return all tables of one model."""
    heat = next((heat for heat in view.heat_maps if heat.rate.column == "asr"), None)
    found = [_ranking(results, run, view), *(_languages(results, run, view, heat) if heat else ())]
    found += [_groups(results, run, view), *_deltas(results, run, view), _price(results, run, view)]
    return (*found, _crosslingual(results, run, view))


def render(table: Table, label: str) -> str:
    """Return a table as a float with caption, label and notes."""
    lines = [
        r"\begin{table}[tbp]",
        r"\centering\footnotesize",
        r"\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{4pt}",
        f"\\caption{{{tex(table.caption)}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{@{{}}l{'r' * (len(table.heading) - 1)}@{{}}}}",
        r"\toprule",
        *_spans(table.spans),
        _row(table.heading),
        r"\midrule",
        *(_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\scriptsize",
        *(tex(note) for note in table.notes),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(entries: Sequence[str]) -> str:
    cells = [f"\\textbf{{{tex(entry)}}}" if isinstance(entry, Bold) else tex(entry) for entry in entries]
    # After the end of a row, LaTeX takes a bracket or a star for an option of it.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"


def _spans(spans: Sequence[tuple[str, int]]) -> Iterator[str]:
    if spans:
        yield " & ".join(f"\\multicolumn{{{size}}}{{c}}{{{tex(title)}}}" for title, size in spans) + r" \\"
        end = 0
        rules = []
        for title, size in spans:
            if title:
                rules.append(f"\\cmidrule(lr){{{end + 1}-{end + size}}}")
            end += size
        yield "".join(rules)


def document(names: Sequence[str]) -> str:
    """Return a document that shows all tables, one page each; its head names the packages they need."""
    shown = [f"\\input{{{name}}}\n\\clearpage" for name in names]
    head = [r"\documentclass{article}", r"\usepackage[margin=2cm]{geometry}", r"\usepackage{booktabs}"]
    return "\n".join([*head, r"\begin{document}", *shown, r"\end{document}"]) + "\n"


def _level(results: Results) -> str:
    return f"{100 * (1 - results.design.alpha):g} %"


def _sample(results: Results, run: RunInfo, view: ModelView) -> str:
    """Return how much data the numbers rest on."""
    primary = [task for task in run.tasks if task.name in results.design.primary]
    judges = ", ".join(dict.fromkeys(task.judge for task in primary))
    judged = f"; judge: {judges}" if judges else ""
    done = view.ranking[view.ranking["asr"].notna()]
    if done.empty:
        return f"No method is complete{judged}."
    prompts, (sources, seeds) = sum(task.prompts for task in primary), (_range(done[x]) for x in ("clusters", "seeds"))
    return f"n = {prompts} prompts in each language, from {sources} sources; seeds per method: {seeds}{judged}."


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _intervals(results: Results) -> str:
    draws = f"{results.design.resamples:,}"
    return (
        f"Brackets: {_level(results)} intervals; of rates: Wilson with the effective number of source prompts, of "
        f"differences: expanded percentiles of {draws} bootstrap draws of source prompts."
    )


def _method(line: Mapping[str, object]) -> str:
    return f"{line['method']}{'' if line['status'] == 'complete' else '†'}"


def _unfinished(view: ModelView) -> tuple[str, ...]:
    open_ = any(line["status"] != "complete" for line in view.lines)
    return ("† Some seeds are missing; a dash stands for what is incomplete.",) if open_ else ()


def _ranking(results: Results, run: RunInfo, view: ModelView) -> Table:
    design = results.design
    leader = view.lines[0]
    rows = []
    for line in view.lines:
        best = line["tied"] or (line is leader and line["status"] != "incomplete")
        asr = interval(line, "asr")
        delta = "baseline" if line["method"] == design.baseline else interval(line, "delta")
        price = (words.percent(line[name]) for name in ("over_refusal", "utility", "invalid"))
        rows.append((_method(line), Bold(asr) if best else asr, delta, words.p_value(line["p_holm"]), *price))
    test = (
        f"Difference from the baseline {design.baseline}; p: paired sign flips of source prompts, two-sided, "
        f"Holm-adjusted over {results.comparisons['primary'].sum()} comparisons."
    )
    return Table(
        name="ranking",
        caption=f"Attack success on {view.model}, mean over all languages of {', '.join(design.primary)}, in percent; "
        "lower is safer.",
        heading=("Method", "Attack success", "Difference", "p", "Over-refusal", "Utility", "Invalid"),
        rows=tuple(rows),
        notes=(
            _sample(results, run, view),
            _intervals(results),
            test,
            "Bold: the safest method and those that cannot be told from it.",
            *_unfinished(view),
        ),
    )


def _languages(results: Results, run: RunInfo, view: ModelView, heat: HeatMap) -> Iterator[Table]:
    means = {str(line["method"]): words.percent(line["asr"]) for line in view.lines}
    for number, at in enumerate(range(0, len(heat.languages), WIDEST), start=1):
        some = heat.languages[at : at + WIDEST]
        groups = [str(fact["tier"]) if fact["trained"] else "unseen" for fact in some]
        rows = [(name, *map(_rate, cells[at : at + WIDEST]), means[name]) for name, cells in heat.rows]
        yield Table(
            name="languages" if number == 1 else f"languages-{number}",
            caption=f"Attack success on {view.model} by language, in percent; lower is safer.",
            spans=(("", 1), *_runs(groups), ("", 1)),
            heading=("Method", *(str(fact["language"]) for fact in some), "mean"),
            rows=tuple(rows),
            notes=(
                _sample(results, run, view),
                "Above the languages: resource tier; unseen: no method trained on it. Mean: over all languages.",
                *(("† Some seeds are missing; a dash stands for what is incomplete.",) if _marked(heat) else ()),
            ),
        )


def _rate(cell: HeatCell) -> str:
    return words.percent(cell.value) + ("†" if cell.marked and cell.value is not None else "")


def _marked(heat: HeatMap) -> bool:
    return any(cell.marked for _, cells in heat.rows for cell in cells)


def _runs(names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return each name with how often it follows itself: a a b -> (a, 2), (b, 1)."""
    found: list[tuple[str, int]] = []
    for name in names:
        found = [*found[:-1], (name, found[-1][1] + 1)] if found and found[-1][0] == name else [*found, (name, 1)]
    return tuple(found)


def _groups(results: Results, run: RunInfo, view: ModelView) -> Table:
    present = [group for group in GROUPS if any(group in groups for _, groups in view.groups)]
    measures = {"asr": "Attack success", "over_refusal": "Over-refusal"}
    rows = [
        (name, *(words.percent(groups.get(group, {}).get(measure)) for measure in measures for group in present))
        for name, groups in view.groups
    ]
    return Table(
        name="groups",
        caption=f"Attack success and over-refusal on {view.model} by group of languages, in percent; lower is better.",
        spans=(("", 1), *((title, len(present)) for title in measures.values())),
        heading=("Method", *present, *present),
        rows=tuple(rows),
        notes=(
            _sample(results, run, view),
            f"Each language has the same weight. The pivot ({results.design.pivot}) belongs to no tier; unseen: no "
            "method trained on it.",
        ),
    )


def _deltas(results: Results, run: RunInfo, view: ModelView) -> Iterator[Table]:
    scopes = list(dict.fromkeys(view.deltas["scope"]))
    lines = {(line["method"], line["scope"]): line for line in view.deltas.to_dict("records")}
    methods = list(dict.fromkeys(view.deltas["method"]))
    alpha = results.design.alpha
    for number, at in enumerate(range(0, len(scopes), WIDEST // 2), start=1):
        some = scopes[at : at + WIDEST // 2]
        rows = []
        for method in methods:
            found = [lines.get((method, scope), {}) for scope in some]
            rows.append((str(method), *(_difference(line, alpha) for line in found)))
        yield Table(
            name="deltas" if number == 1 else f"deltas-{number}",
            caption=f"Change of attack success on {view.model} against {results.design.baseline} by language, in "
            "percentage points; below 0 is safer.",
            heading=("Method", *(str(scope).removeprefix("language ") for scope in some)),
            rows=tuple(rows),
            notes=(
                _sample(results, run, view),
                f"Brackets: {_level(results)} score intervals (Tango) with the effective number of source prompts.",
                f"* p ≤ {alpha:g}: paired sign flips of source prompts, two-sided, adjusted for the number of "
                "languages of a method (max-T). Exploratory.",
            ),
        )


def _difference(line: Mapping[str, object], alpha: float) -> str:
    if not line:
        return words.DASH
    star = "*" if words.number(line["p"]) <= alpha else ""
    return f"{words.signed(line['delta'])}{star} [{words.signed(line['low'])}, {words.signed(line['high'])}]"


def _price(results: Results, run: RunInfo, view: ModelView) -> Table:
    design = results.design
    rows = []
    for line in view.lines:
        entries = [_method(line)]
        for name in ("over_refusal", "utility"):
            change = {**line, "delta": line[f"{name}_delta"]}
            change |= {f"delta_{end}": line[f"{name}_delta_{end}"] for end in ("low", "high")}
            entries += [words.percent(line[name]), interval(change, "delta"), words.p_value(line[f"{name}_p_margin"])]
        rows.append((*entries, words.duration(line["train_seconds"])))
    margins = " and ".join(words.points(margin) for margin in (design.over_refusal_margin, design.utility_margin))
    return Table(
        name="price",
        caption=f"The price on {view.model}: over-refusal and utility in percent, and their change against "
        f"{design.baseline} in points.",
        spans=(("", 1), ("Over-refusal (lower is better)", 3), ("Utility (higher is better)", 3), ("", 1)),
        heading=("Method", "%", "change", "p", "%", "change", "p", "training"),
        rows=tuple(rows),
        notes=(
            _sample(results, run, view),
            _intervals(results),
            f"p: one-sided, of a loss of the margin or more ({margins}); a small p excludes such a loss. Exploratory.",
            *_unfinished(view),
        ),
    )


def _crosslingual(results: Results, run: RunInfo, view: ModelView) -> Table:
    measures = {name: (MEASURES[name], shown) for name, (_, shown) in CROSSLINGUAL.items()}
    rows = [
        (
            str(line["method"]),
            *(f"{shown(line[name])} ({shown(line[f'{name}_expected'])})" for name, (_, shown) in measures.items()),
        )
        for line in view.crosslingual
    ]
    return Table(
        name="crosslingual",
        caption=f"Whether languages fail alike on {view.model}.",
        heading=("Method", *(title for title, _ in measures.values())),
        rows=tuple(rows),
        notes=(
            _sample(results, run, view),
            f"Worst: attack success in the worst language, %. Gap: the same less that of {results.design.pivot}, "
            "points. Variance: of the safe rate over languages, × 100. Any: prompts unsafe in at least one language, "
            f"%. Loophole: refused in {results.design.pivot}, unsafe elsewhere, %. Agreement: mean pairwise, %. "
            "κ: Fleiss' kappa.",
            "In brackets what chance alone would give: for the first three, were no language harder than another; for "
            "the others, did each language err at its own rate on prompts of its own. Exploratory.",
        ),
    )
