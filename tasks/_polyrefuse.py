"""What the two halves of PolyRefuse share: one JSON file per language, paired by position and by the English text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Language
from mlbench.data import DataTask, Loaded, Table, parallel, read
from mlbench.errors import DataError

LANGUAGES: tuple[Language, ...] = (
    "en", "ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "ru", "th", "yo", "zh",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PolyRefuse(DataTask):
    """One half of PolyRefuse; `data` is the folder with its files."""

    source: ClassVar[str] = "PolyRefuse, arXiv:2505.17306, commit 985169d"
    licence: ClassVar[str] = "Apache-2.0; the prompts keep the terms of the sets they come from"
    example: ClassVar[str] = "path/to/PolyRefuse"
    part: ClassVar[str]
    citation: ClassVar[str] = """@inproceedings{wang2025refusal,
  title = {Refusal Direction is Universal Across Safety-Aligned Languages},
  author = {Wang, Xinpeng and Wang, Mingyang and Liu, Yihong and Sch{\\"u}tze, Hinrich and Plank, Barbara},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2025},
  note = {arXiv:2505.17306},
}"""

    def load(self) -> Loaded:
        """Return the prompts; a row's number, from 0, is its id in every language.

        Raises:
            DataError: A file is missing, or a row is not the translation of the English file's row.
        """
        folder = self.path(folder=True)
        paths = {code: folder / f"{self.part}_test_translated_{code}.json" for code in self.codes}
        for path in paths.values():
            if not path.is_file():
                raise DataError(f"{path} does not exist")
        self.verify(list(paths.values()), folder)
        tables = {code: read(path) for code, path in paths.items()}
        english = _column(tables["en"], "instruction")
        for table in tables.values():
            _aligned(english, tables["en"].name, table)
        columns = {
            code: english if code == "en" else _column(table, "instruction_translated")
            for code, table in tables.items()
        }
        texts = {code: {str(at): text for at, text in enumerate(column)} for code, column in columns.items()}
        return parallel(f"polyrefuse-{self.part}", texts, pivot="en")


def _column(table: Table, column: str) -> list[str]:
    table.require(column)
    texts = table.texts(column)
    for at, text in enumerate(texts):
        if not text.strip():
            raise DataError(f"no text in column {column!r}", where=table.where(at))
    return texts


def _aligned(english: list[str], name: str, table: Table) -> None:
    """Refuse a file that is not row by row the translation of the English one."""
    mine = _column(table, "instruction")
    if len(mine) != len(english):
        raise DataError(f"{table.name} has {len(mine)} rows, {name} has {len(english)}")
    for at, (one, other) in enumerate(zip(english, mine, strict=True)):
        if one != other:
            raise DataError(f"another English text than in the same row of {name}", where=table.where(at))
