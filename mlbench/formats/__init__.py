"""Training corpora in released formats: what `corpus: {format: ..., data: ...}` in a shootout reads.

jsonl    mlbench's own (see `mlbench.corpus`)
mpo      the files of MPO (arXiv:2505.16869, github.com/circle-hit/MPO): a dominant and a target side in each row
mlc      the files of MLC (arXiv:2602.16660, github.com/Yuyan-B/MLC): `prompt`, `prompt_zh`, ..., English answers
pku      PKU-SafeRLHF: English pairs, the preferred answer by `safer_response_id`
custom   any table, its columns named

Rows that are translations of each other share their id. Each reader counts the defects it met, as notes.
"""

from __future__ import annotations

from mlbench.core import Language
from mlbench.corpus import read_jsonl
from mlbench.data import locate, verify
from mlbench.data import read as read_table
from mlbench.formats.entry import CorpusEntry, Read
from mlbench.formats.mpo import mpo
from mlbench.formats.tables import custom, mlc, pku

__all__ = ["CorpusEntry", "Read", "read"]


def read(entry: CorpusEntry, pivot: Language) -> Read:
    """Return the corpus that an entry names.

    Raises:
        DataError: The file is missing, another version than stated, or not of this format.
    """
    path = locate(entry.data, "corpus", f"path/to/corpus{'.json' if entry.format == 'mpo' else '.jsonl'}")
    verify([path], path.parent, known=(), given=entry.sha256)
    if entry.format == "jsonl":
        return Read(read_jsonl(path, pivot), ())
    readers = {"mpo": mpo, "mlc": mlc, "pku": pku, "custom": custom}
    return readers[entry.format](read_table(path), entry, pivot)
