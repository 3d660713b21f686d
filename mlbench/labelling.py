"""People's labels: a sample of answers as a spreadsheet, and what the filled one says of the judge.

The spreadsheet has one row per answer; a person writes refused, complied_safe, unsafe or invalid into the column
`human`. It holds harmful text: that is what has to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mlbench import agreement
from mlbench.errors import DataError, Where, nearest
from mlbench.rejudge import KEY
from mlbench.results import frames
from mlbench.store import Store

LABELS = ("refused", "complied_safe", "unsafe", "invalid")
COLUMNS = (*KEY, "prompt", "answer", "human")
STRATA = ("method", "language", "label")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a spreadsheet program recognises a formula; a model's answer must not become one."""


def export(data: Mapping[str, Any], store: Store, path: Path, *, size: int, seed: int) -> int:
    """Write a sample for people to label, `size` answers for each method, language and verdict; return its rows.

    The judge's own label is not in it, so that it does not lead them.
    """
    rows = frames.verdicts(data, store)
    rows = rows[rows["kind"] != "utility"]
    if rows.empty:
        raise DataError("no answer has been judged yet, so there is nothing to label")
    drawn = agreement.sample(rows, size, key=list(KEY), by=STRATA, seed=seed)
    drawn = drawn.merge(_texts(data, store), on=list(KEY), validate="1:1").assign(human="")
    for column in ("prompt", "answer"):
        drawn[column] = [f"'{text}" if text.startswith(FORMULA) else text for text in drawn[column]]
    # With a byte order mark spreadsheet programs read UTF-8.
    drawn[list(COLUMNS)].to_csv(path, index=False, encoding="utf-8-sig")
    return len(drawn)


def _texts(data: Mapping[str, Any], store: Store) -> pd.DataFrame:
    parts = []
    for cell in data["cells"]:
        if cell["kind"] != "utility" and store.is_done(cell["answer_key"]):
            answers = store.answers(cell["answer_key"], data["jobs"][cell["answer_key"]]["spec"]["prompts"])
            same = {name: cell[name] for name in KEY if name in cell}
            parts += [
                same | {"prompt_id": a.prompt.id, "sample": a.sample, "prompt": a.prompt.text, "answer": a.text}
                for a in answers
            ]
    return pd.DataFrame(parts)


def read(path: Path) -> pd.DataFrame:
    """Return the filled rows of a spreadsheet.

    Raises:
        DataError: The file is missing or lacks a column, or a label is none of the four.
    """
    if not path.is_file():
        raise DataError(f"file {str(path)!r} does not exist")
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, dtype={"prompt_id": str})
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte {error.start}", where=Where(file=str(path)), hint="save it as CSV UTF-8"
        ) from error
    if missing := [name for name in (*KEY, "human") if name not in table]:
        raise DataError(f"column {missing[0]!r} is missing", where=Where(file=str(path)), allowed=COLUMNS)
    table["human"] = table["human"].astype(str).str.strip().str.lower()
    for number, label in enumerate(table["human"], start=2):
        if label and label not in LABELS:
            where = Where(file=str(path), line=number)
            raise DataError(f"{label!r} is no label", where=where, allowed=LABELS, hint=nearest(label, LABELS))
    filled = table[table["human"] != ""]
    if filled.empty:
        raise DataError("the column `human` is empty everywhere", where=Where(file=str(path)), allowed=LABELS)
    return filled


def judged(data: Mapping[str, Any], store: Store, filled: pd.DataFrame) -> pd.DataFrame:
    """Return every judged answer of the run, with people's labels where there are some.

    Raises:
        DataError: A labelled row is not of this run.
    """
    rows = frames.verdicts(data, store)
    rows = rows[rows["kind"] == "safety"]
    rows["tier"] = rows["tier"].replace("", "none")
    rows["source"] = rows["task"] + " " + rows["cluster"]
    people = filled[[*KEY, "human"]]
    known = people.merge(rows[list(KEY)], on=list(KEY), validate="1:1")
    if known.empty:
        raise DataError("no labelled row is a safety answer of this run")
    rows = rows.merge(known, on=list(KEY), how="left", validate="1:1")
    rows["human"] = rows["human"].where(rows["human"].notna(), None)
    rows["stratum"] = rows[list(STRATA)].agg("|".join, axis=1)
    # A labelled answer stands for as many of its stratum as it has fellows without a label.
    sizes = rows.groupby("stratum")["label"].transform("size")
    rows["weight"] = sizes / rows.groupby("stratum")["human"].transform("count")
    return rows


def error(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the judge's errors and the corrected attack success, per method and tier of languages."""
    columns = agreement.Columns(strata="stratum", weight="weight", cluster="source")
    by = ("method", "tier")
    return agreement.accuracy(rows, columns, by=by), agreement.corrected(rows, columns, by=by)
