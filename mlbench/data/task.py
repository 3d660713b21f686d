"""What all tasks over released data sets share: where the data lie, which version they are, and how prompts come out.

A task states its source, languages and shape of a row, and says in `load` how rows become prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, StringConstraints
from pydantic.dataclasses import dataclass

from mlbench import languages as world
from mlbench.core import Language, Prompt, Tier
from mlbench.data import files
from mlbench.data.hub import Hub, load
from mlbench.data.prompts import Loaded
from mlbench.errors import AbsentError, DataError

Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{64})?$")]


def is_dev(cluster: str) -> bool:
    """Return whether a cluster is for choosing settings: one in five, by its hash, so in all languages alike."""
    return int(hashlib.sha256(cluster.encode()).hexdigest(), 16) % 5 == 0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DataTask:
    """A task whose prompts lie in a file, in a folder, or on the Hugging Face hub.

    Attributes:
        data: Path of the file or folder; "" = the data set on the hub, where it has one.
        sha256: Version to accept instead of the known one: the file's SHA-256; of several files that of the lines
            "<sha256>  <path>".
        revision: Commit of the hub data set, where it is used.
        split: "dev" = a fifth of the clusters, for choosing settings; "test" = the others; "all" = both, as published.
    """

    hub: ClassVar[Hub | None] = None
    """The data set on the hub."""
    example: ClassVar[str] = "path/to/file.csv"
    """What `data` looks like, for hints."""
    known: ClassVar[Mapping[str, int]] = {}
    """SHA-256 of each known version -> its rows."""
    size: ClassVar[int] = 0
    """Prompts per language that are published, where no version is known; 0 = not known."""
    parallel: ClassVar[bool] = True
    """Whether prompts of one id are translations of each other; else each language has its own ids."""
    codes: ClassVar[tuple[Language, ...]] = ("en",)
    """Languages it has prompts in."""

    data: str = ""
    sha256: Sha256 = ""
    revision: str = ""
    split: Literal["all", "dev", "test"] = "all"

    @property
    def languages(self) -> tuple[Language, ...]:
        """Languages it has prompts in."""
        return self.codes

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """Default resource tiers (see `mlbench.languages`)."""
        return world.tiers(self.languages)

    @property
    def judge(self) -> str:
        """Refusal phrases: a smoke test until a shootout names a guard model."""
        return "refusal"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results has to know of the data, counted."""
        return self.loaded.notes

    def prompts(self, language: Language) -> Sequence[Prompt]:
        """Return the prompts of one language.

        Raises:
            DataError: The data are missing, another version than expected, or malformed.
        """
        found = self.loaded.prompts[language]
        if self.split == "all":
            return found
        return tuple(prompt for prompt in found if is_dev(prompt.cluster) == (self.split == "dev"))

    @cached_property
    def loaded(self) -> Loaded:
        """All prompts, read once."""
        return self.load()

    def load(self) -> Loaded:
        """Read the data."""
        raise NotImplementedError

    def table(self) -> files.Table:
        """Return the rows of the verified file, or of the hub data set.

        Raises:
            DataError: There is neither, or it is another version than expected.
        """
        if not self.data:
            table = self._from_hub()
            if self.known and len(table.rows) not in self.known.values():
                expected = " or ".join(map(str, sorted(set(self.known.values()))))
                raise DataError(f"{table.name} has {len(table.rows)} rows at this commit, expected {expected}")
            return table
        path = self.path()
        self.verify([path], path.parent)
        return files.read(path)

    def _from_hub(self) -> files.Table:
        if self.hub is None:
            raise self._nowhere()
        return load(self.hub, self.revision, self.example)

    def _nowhere(self) -> AbsentError:
        return AbsentError(
            f"{type(self).__name__} has no data set on the hub that we know of: it needs a local copy",
            hint=f"give its path: with: {{data: {self.example}}}",
        )

    def path(self, *, folder: bool = False) -> Path:
        """Return the path in `data`.

        Raises:
            DataError: Nothing is there.
        """
        if not self.data:
            raise self._nowhere()
        return files.locate(self.data, type(self).__name__, self.example, folder=folder)

    def verify(self, paths: Sequence[Path], root: Path) -> None:
        """Refuse files of another version than the known ones or `sha256`.

        Raises:
            DataError: Says what was expected and how to accept what was found.
        """
        files.verify(paths, root, known=self.known, given=self.sha256)
