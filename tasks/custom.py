"""Your own prompts: any CSV, TSV, JSON, JSONL or Parquet file, or hub data set, with its columns named.

One column per language (a row is a source prompt):
    {use: custom, name: clinic, with: {data: clinic.csv, columns: {en: question, sw: swahili}, id: nr}}
One row per prompt and language:
    {use: custom, with: {data: all.jsonl, text: prompt, language: lang, id: source_id, kind: over_refusal}}
Rows of one id are translations of each other, and share a cluster with near-duplicates unless `cluster` names a column.
"""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Hub, Loaded, Table, load, long, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Custom(DataTask):
    """Prompts of a user.

    Attributes:
        data: Path of the file.
        dataset: Hub id, where there is no file; `config` and `hub_split` are the hub's.
        kind: What a refusal means: safety, over_refusal or utility.
        columns: Language -> column of its prompts, for one column per language.
        text: Column of the prompts, for one row per prompt and language.
        language: Column of the languages, as codes or English names.
        id: Column of ids; "" = the row's number. In the long form no id means that nothing is a translation.
        cluster: Column of clusters; "" = near-duplicates of the pivot's prompts share one. Not in the long form.
        reference: Column of what the judge needs to know. Not in the long form.
        pivot: Language whose prompts tell near-duplicates.
        where: Column -> value: only such rows are asked.
        complete: Whether every id must occur in every language.
        judge: The judge.
        source: Where the prompts come from, for reports.
        licence: Their licence, for reports.
    """

    dataset: str = ""
    config: str = ""
    hub_split: str = ""
    kind: Kind = "safety"
    columns: dict[Language, str] = field(default_factory=lambda: {"en": "prompt"})
    text: str = ""
    language: str = ""
    id: str = ""
    cluster: str = ""
    reference: str = ""
    pivot: Language = "en"
    where: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    judge: str = "refusal"
    source: str = "a user's own prompts"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if bool(self.text) != bool(self.language):
            raise ValueError("`text` and `language` name the columns of one form, give both or `columns`")
        if self.text and (self.cluster or self.reference):
            raise ValueError("`cluster` and `reference` go with `columns`, one column per language")
        if not self.text and self.pivot not in self.columns:
            raise ValueError(f"`columns` has no column for the pivot {self.pivot!r}")

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages of `columns`, or those found in the column `language`."""
        return tuple(self.loaded.prompts) if self.text else tuple(self.columns)

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """Whether translations share an id."""
        return not self.text or bool(self.id)

    def table(self) -> Table:
        """Return the rows to ask, of the file or of the hub data set.

        Raises:
            DataError: There is neither, or no such row.
        """
        if self.dataset and not self.data:
            table = load(Hub(id=self.dataset, config=self.config, split=self.hub_split), self.revision, self.example)
        else:
            table = super().table()
        return table.select(self.where) if self.where else table

    def load(self) -> Loaded:
        """Return the prompts of the named columns."""
        table = self.table()
        if self.text:
            return long(
                table,
                "custom",
                text=self.text,
                language=self.language,
                id=self.id,
                pivot=self.pivot,
                complete=self.complete,
            )
        return wide(
            table,
            "custom",
            self.columns,
            id=self.id,
            cluster=self.cluster,
            reference=self.reference,
            pivot=self.pivot,
        )


plugin = Custom
