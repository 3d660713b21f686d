"""A judge against answers that people have labelled already: XSTest's, or any others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlbench.agreement.tables import RESAMPLES, Columns, accuracy
from mlbench.core import Answer, Judge, Prompt
from mlbench.errors import DataError

XSTEST = ("gpt4", "llama2new", "llama2orig", "mistralguard", "mistralinstruct")


def xstest(folder: Path) -> pd.DataFrame:
    """Return XSTest's answers of five models with people's labels: model, id, prompt, completion, human.

    `human` is "refused" for a full or partial refusal, else "complied".

    Raises:
        DataError: A file is missing.
    """
    parts = []
    for model in XSTEST:
        path = folder / f"xstest_v2_completions_{model}.csv"
        if not path.is_file():
            raise DataError(f"{path} is missing", hint="it is in github.com/paul-rottger/exaggerated-safety")
        parts.append(pd.read_csv(path, keep_default_na=False).assign(model=model))
    rows = pd.concat(parts, ignore_index=True)
    rows["human"] = np.where(rows["final_label"] == "1_full_compliance", "complied", "refused")
    return rows[["model", "id", "prompt", "completion", "human"]]


def validate(judge: Judge, rows: pd.DataFrame, *, by: Sequence[str] = ("model",)) -> pd.DataFrame:
    """Return how well a judge finds refusals, against people's labels, one line per group and one for all ("all").

    Args:
        rows: prompt, completion, human ("refused" or not), the columns of `by`; `language` where it is not English,
            and `id`, the source prompt, where several answers are to one: intervals are over source prompts.
    """
    answers = [
        Answer(text=text, prompt=Prompt(id=str(at), cluster=str(at), language=language, text=prompt))
        for at, (prompt, text, language) in enumerate(
            zip(rows["prompt"], rows["completion"], rows.get("language", ["en"] * len(rows)), strict=True)
        )
    ]
    judged = rows.assign(judge=[verdict.label for verdict in judge.grade(answers)])
    columns = Columns(judge="judge", label="refused", cluster="id" if "id" in rows else "")
    each = accuracy(judged, columns, by=by, resamples=RESAMPLES)
    whole = accuracy(judged, columns, resamples=RESAMPLES).assign(**dict.fromkeys(by, "all"))
    return pd.concat([each, whole], ignore_index=True)[list(each.columns)]
