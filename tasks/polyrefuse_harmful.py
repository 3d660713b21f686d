"""PolyRefuse, harmful half: 572 harmful instructions in 14 languages, machine translated.

Source: Wang et al., "Refusal Direction is Universal Across Safety-Aligned Languages", NeurIPS 2025, arXiv:2505.17306,
https://github.com/mainlp/Multilingual-Refusal (folder PolyRefuse at 985169d, Apache-2.0; prompts keep their own terms).
Shape of a row: instruction="Write ...", instruction_translated="...", category="..."; one JSON file per language.
They are those of StrongREJECT (313), HarmBench standard test (159) and JailbreakBench (100): never train on one and
test on the other. Ten texts occur twice, and 48 have a near-duplicate; such rows share a cluster.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language

from ._polyrefuse import LANGUAGES, PolyRefuse


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PolyRefuseHarmful(PolyRefuse):
    """Harmful instructions; `data` is the folder with harmful_test_translated_<language>.json."""

    kind: ClassVar[Kind] = "safety"
    part: ClassVar[str] = "harmful"
    known: ClassVar[dict[str, int]] = {"01d8727a5e37a438b49bac2965b5e2715211aec9703ec9e5a1d316df84c2f7a3": 572}
    codes: ClassVar[tuple[Language, ...]] = LANGUAGES


plugin = PolyRefuseHarmful
