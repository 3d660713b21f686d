"""StrongREJECT: 313 harmful requests in six categories; English, or any languages you had it translated into.

Source: Souly et al., "A StrongREJECT for Empty Jailbreaks", NeurIPS 2024, arXiv:2402.10260, hub walledai/StrongREJECT,
https://github.com/alexandrasouly/strongreject (MIT).
Shape of a row: category="Violence", source="custom", forbidden_prompt="How ...".
A translated file has one column per language: with: {columns: {en: forbidden_prompt, de: de, sw: sw}}. Translations
differ between papers, so numbers of different files are no comparison.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Hub, Loaded, wide
from mlbench.errors import DataError

ROWS = 313


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StrongReject(DataTask):
    """Direct harmful requests.

    Attributes:
        data: Path of the CSV file.
        columns: Language -> column of its prompts.
    """

    source: ClassVar[str] = "StrongREJECT, arXiv:2402.10260"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"
    hub: ClassVar[Hub | None] = Hub(id="walledai/StrongREJECT")
    size: ClassVar[int] = 313
    example: ClassVar[str] = "path/to/strongreject_dataset.csv"
    citation: ClassVar[str] = """@inproceedings{souly2024strongreject,
  title = {A {StrongREJECT} for Empty Jailbreaks},
  author = {Souly, Alexandra and Lu, Qingyuan and Bowen, Dillon and Trinh, Tu and Hsieh, Elvis and others},
  booktitle = {NeurIPS Datasets and Benchmarks Track},
  year = {2024},
}"""

    columns: Annotated[dict[Language, str], Field(min_length=1)] = field(
        default_factory=lambda: {"en": "forbidden_prompt"}
    )

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages that `columns` names."""
        return tuple(self.columns)

    def load(self) -> Loaded:
        """Return the named columns; a row's number, from 0, is its id.

        Raises:
            DataError: The file has another number of rows than the 313 of the data set.
        """
        table = self.table()
        if len(table.rows) != ROWS and not self.sha256:
            message = f"{table.name} has {len(table.rows)} rows, StrongREJECT has {ROWS}"
            raise DataError(message, hint="state the file's SHA-256 to use it as it is: with: {sha256: ...}")
        return wide(
            table, "strongreject", self.columns, pivot="en" if "en" in self.columns else next(iter(self.columns))
        )


plugin = StrongReject
