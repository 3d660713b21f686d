"""What tasks over hub data sets share whose columns we could not read: the user names them, nothing is guessed."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Language
from mlbench.data import DataTask, Loaded, long
from mlbench.errors import DataError

Role = Literal["text", "language", "id"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NamedColumns(DataTask):
    """One row per prompt and language, in columns that the user names.

    Attributes:
        columns: What a column holds -> its name: `text` and `language` (codes or English names) are needed; `id`,
            where translations share one, makes prompts comparable across languages.
        where: Column -> value: only such rows are asked.
    """

    name: ClassVar[str]

    columns: dict[Role, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """Whether translations share an id."""
        return "id" in self.columns

    def load(self) -> Loaded:
        """Return the prompts of the card's languages.

        Raises:
            DataError: `columns` lacks the text or the language; names the columns there are.
        """
        table = self.table()
        for role in ("text", "language"):
            if role not in self.columns:
                raise DataError(
                    f"which column of {table.name} holds the {role}? Its card could not be read when this was written",
                    hint="say so: with: {columns: {text: ..., language: ..., id: ...}}",
                    allowed=table.columns,
                )
        rows = table.select(self.where) if self.where else table
        found = long(
            rows,
            self.name,
            text=self.columns["text"],
            language=self.columns["language"],
            id=self.columns.get("id", ""),
            complete=False,
        )
        return _only(found, self.codes, table.name)


def _only(found: Loaded, codes: tuple[Language, ...], name: str) -> Loaded:
    """Return the prompts of the given languages, and a note on others.

    Raises:
        DataError: A language has no prompts.
    """
    if lacking := [code for code in codes if code not in found.prompts]:
        raise DataError(f"{name} has no prompts in {', '.join(lacking)}", allowed=found.prompts)
    others = [code for code in found.prompts if code not in codes]
    notes = [f"not asked, since the data card does not name them: {', '.join(others)}"] if others else []
    counts = {code: len(found.prompts[code]) for code in codes}
    if len(set(counts.values())) > 1:
        notes.append(f"prompts per language differ: {', '.join(f'{code} {count}' for code, count in counts.items())}")
    return Loaded(prompts={code: found.prompts[code] for code in codes}, notes=(*notes, *found.notes))
