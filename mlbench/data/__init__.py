"""Evaluation prompts out of files and hub data sets: read, verify, pair across languages, group near-duplicates."""

from mlbench.data.files import Cells, Table, column_of, locate, read, text_of, utf8, verify
from mlbench.data.hub import Hub, load
from mlbench.data.prompts import Loaded, long, parallel, unpaired, wide
from mlbench.data.task import DataTask

__all__ = [
    "Cells",
    "DataTask",
    "Hub",
    "Loaded",
    "Table",
    "column_of",
    "load",
    "locate",
    "long",
    "parallel",
    "read",
    "text_of",
    "unpaired",
    "utf8",
    "verify",
    "wide",
]
