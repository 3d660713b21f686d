"""A sample of answers for people to label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd

from mlbench.agreement.tables import WEIGHT
from mlbench.errors import DataError


def sample(
    rows: pd.DataFrame, size: int, *, key: Sequence[str], by: Sequence[str] = ("method", "language", "label"),
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Return at most `size` rows of each stratum for people to label, with the columns `stratum` and `weight`.

    `weight` is how many rows of the stratum each stands for. The choice depends on the seed and the rows' keys alone:
    not on their order, and not on the other strata.

    Args:
        key: Columns that name a row.

    Raises:
        DataError: Two rows have the same key.
    """
    if rows.duplicated([*key]).any():
        raise DataError(f"{int(rows.duplicated([*key]).sum())} rows have the same {', '.join(key)}")
    made = rows.assign(stratum=_joined(rows, by))
    names = pd.Series(
        [
            hashlib.sha256(f"{seed}\0{stratum}\0{name}".encode()).hexdigest()
            for stratum, name in zip(made["stratum"], _joined(rows, key), strict=True)
        ],
        index=rows.index,
    )
    chosen = made[names.groupby(made["stratum"]).rank(method="first") <= size].copy()
    counts = made["stratum"].value_counts()
    chosen[WEIGHT] = chosen["stratum"].map(counts / counts.clip(upper=size))
    return chosen.loc[names[chosen.index].sort_values().index].sort_values("stratum", kind="stable")


def _joined(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    names = zip(*(rows[column].astype(str) for column in columns), strict=True)
    return pd.Series(["|".join(name) for name in names], index=rows.index, dtype=object)
