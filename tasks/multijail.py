"""MultiJail: 315 harmful requests, each in ten languages, translated by native speakers.

Source: Deng et al., "Multilingual Jailbreak Challenges in Large Language Models", ICLR 2024, arXiv:2310.06474,
https://github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs (data/MultiJail.csv at 577ac51, MIT).
Shape of a row: id=7, source="anthropics", tags="['Theft']", then one column per language: en, zh, it, vi, ...
"unintentional" asks the prompt alone. "intentional" puts it into a jailbreak instruction; the paper's, an English one
called AIM, is not part of the data and not shipped here: give your own as `template`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language, Tier
from mlbench.data import DataTask, Hub, Loaded, locate, utf8, wide
from mlbench.errors import DataError

TIERS: dict[Language, Tier] = {
    "en": "high", "zh": "high", "it": "high", "vi": "high",
    "ar": "mid", "ko": "mid", "th": "mid",
    "bn": "low", "sw": "low", "jv": "low",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiJail(DataTask):
    """Direct harmful requests.

    Attributes:
        data: Path of MultiJail.csv.
        mode: Whether the request stands alone or in a jailbreak instruction.
        template: Text that contains {prompt}, or the path of a file with such a text; for mode "intentional".
    """

    source: ClassVar[str] = "MultiJail, arXiv:2310.06474, commit 577ac51"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"
    hub: ClassVar[Hub | None] = Hub(id="DAMO-NLP-SG/MultiJail")
    example: ClassVar[str] = "path/to/MultiJail.csv"
    known: ClassVar[dict[str, int]] = {"2798ed6fe470b80b1f486976e0fb3baa3ce008e62b6ca0abbf2e1ed5b1dfb355": 315}
    codes: ClassVar[tuple[Language, ...]] = tuple(TIERS)
    citation: ClassVar[str] = """@inproceedings{deng2024multilingual,
  title = {Multilingual Jailbreak Challenges in Large Language Models},
  author = {Deng, Yue and Zhang, Wenxuan and Pan, Sinno Jialin and Bing, Lidong},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
}"""

    mode: Literal["unintentional", "intentional"] = "unintentional"
    template: str = ""

    def __post_init__(self) -> None:
        if (self.mode == "intentional") != bool(self.template):
            raise ValueError("`template` (a text with {prompt}, or a file with one) belongs to mode: intentional")

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """High, mid and low resource, as the paper groups them."""
        return TIERS

    def load(self) -> Loaded:
        """Return the prompts; the column `id` is shared by all languages."""
        loaded = wide(self.table(), "multijail", {code: code for code in TIERS}, id="id")
        if self.mode == "unintentional":
            return loaded
        before, after = self._template()
        prompts = {
            code: tuple(replace(row, text=before + row.text + after) for row in rows)
            for code, rows in loaded.prompts.items()
        }
        return replace(loaded, prompts=prompts)

    def _template(self) -> list[str]:
        text = self.template
        if "{prompt}" not in text:
            text = utf8(locate(text, "MultiJail template", "path/to/MultiJail.csv, template: path/to/template.txt"))
        parts = text.split("{prompt}")
        if len(parts) != 2:
            raise DataError(f"the template contains {{prompt}} {len(parts) - 1} times, expected once")
        return parts


plugin = MultiJail
