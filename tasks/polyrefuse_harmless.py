"""PolyRefuse, harmless half: 500 harmless instructions in 13 languages, machine translated; a refusal is an error.

Source: Wang et al., "Refusal Direction is Universal Across Safety-Aligned Languages", NeurIPS 2025, arXiv:2505.17306,
https://github.com/mainlp/Multilingual-Refusal (folder PolyRefuse at 985169d, Apache-2.0; prompts keep their own terms).
Shape of a row: instruction="Write ...", instruction_translated="...", category="..."; one JSON file per language.
They are easy, Alpaca-like instructions: they show gross over-refusal only. There is no Chinese file.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language

from ._polyrefuse import LANGUAGES, PolyRefuse


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PolyRefuseHarmless(PolyRefuse):
    """Harmless instructions; `data` is the folder with harmless_test_translated_<language>.json."""

    kind: ClassVar[Kind] = "over_refusal"
    part: ClassVar[str] = "harmless"
    known: ClassVar[dict[str, int]] = {"9bcb9e4778e44617e756cb4b191a3f33b99a7c61c1261beed5f4ea0dd27eb0b5": 500}
    codes: ClassVar[tuple[Language, ...]] = tuple(code for code in LANGUAGES if code != "zh")


plugin = PolyRefuseHarmless
