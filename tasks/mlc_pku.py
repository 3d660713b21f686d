"""PKU-SafeRLHF in ten languages: the in-distribution test set of MLC, 180 harmful prompts each.

Source: Bu et al., "Align Once, Benefit Multilingually", arXiv:2602.16660, https://github.com/Yuyan-B/MLC
(safe_eval/pku_saferlhf_safety_test.jsonl at dbc51c8, Apache-2.0); the prompts are PKU-SafeRLHF's (CC BY-NC 4.0),
translated by GPT-4o.
Shape of a row: prompt=[{"from": "human", "value": "What ..."}], prompt_zh=[...], ..., chosen={"from": "gpt", ...}.
Known defect: Kurdish (ku) mixes two written languages, 134 prompts of Sorani in Arabic script and 46 of Kurmanji in
Latin script. `kurdish` asks only one of them; no number over both is about one language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language, Tier
from mlbench.data import DataTask, Loaded, wide
from mlbench.languages import in_script

TIERS: dict[Language, Tier] = {
    "en": "high", "zh": "high", "ru": "high", "ja": "high", "ar": "high",
    "bn": "low", "sw": "low", "ur": "low", "ps": "low", "ku": "low",
}  # fmt: skip
KURDISH: dict[str, Language] = {"mixed": "ku", "sorani": "ckb", "kurmanji": "kmr"}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MlcPku(DataTask):
    """Harmful prompts out of a preference data set.

    Attributes:
        data: Path of pku_saferlhf_safety_test.jsonl.
        kurdish: "mixed" = all prompts of the column, as published; else those in one script, as ckb or kmr.
    """

    source: ClassVar[str] = "PKU-SafeRLHF test of MLC, arXiv:2602.16660, commit dbc51c8"
    licence: ClassVar[str] = "CC BY-NC 4.0 (PKU-SafeRLHF); repository Apache-2.0"
    kind: ClassVar[Kind] = "safety"
    example: ClassVar[str] = "path/to/pku_saferlhf_safety_test.jsonl"
    known: ClassVar[dict[str, int]] = {"29c453528218b440821198bb0150d39219466f3d1f707ded64c0b51e88e76b69": 180}
    citation: ClassVar[str] = """@inproceedings{bu2026align,
  title = {Align Once, Benefit Multilingually: Enforcing Multilingual Consistency for {LLM} Safety Alignment},
  author = {Bu, Yuyan and Liu, Xiaohao and Ren, ZhaoXing and Yang, Yaodong and Dai, Juntao},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  note = {arXiv:2602.16660},
}"""

    kurdish: Literal["mixed", "sorani", "kurmanji"] = "mixed"

    @property
    def languages(self) -> tuple[Language, ...]:
        """The ten languages; Kurdish under the code of what is asked."""
        return tuple(KURDISH[self.kurdish] if code == "ku" else code for code in TIERS)

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """High and low resource, as the paper groups them."""
        return {code: TIERS.get(code, "low") for code in self.languages}

    def load(self) -> Loaded:
        """Return the prompts; a row's number, from 0, is its id."""
        columns = {code: "prompt" if code == "en" else f"prompt_{code}" for code in TIERS}
        loaded = wide(self.table(), "mlc_pku", columns)
        if self.kurdish == "mixed":
            return loaded
        code = KURDISH[self.kurdish]
        one = tuple(replace(row, language=code) for row in loaded.prompts["ku"] if in_script(row.text, code))
        prompts = {name: rows for name, rows in loaded.prompts.items() if name != "ku"} | {code: one}
        notes = [note for note in loaded.notes if not note.startswith("ku ")]
        return Loaded(
            prompts=prompts, notes=(*notes, f"{code}: {len(one)} of {len(loaded.prompts['ku'])} Kurdish prompts")
        )


plugin = MlcPku
