"""Supervised fine-tuning on the chosen answers.

With `languages: pivot` (the default) it is the control of every shootout: the same number of steps in the pivot
language only, which alone lowers the attack success rate elsewhere. With `languages: all` it is the upper reference:
translated safety data in every training language, which the other methods try to do without.

    L = - sum_t log pi(y_t | x, y_<t)  over the tokens of the chosen answer and its end of turn, mean per token

Source: Ouyang et al., "Training language models to follow instructions with human feedback", arXiv:2203.02155,
step 1. Deviation: budget and optimiser are those of the shootout, shared by all methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.corpus import answer_needs, preferences

if TYPE_CHECKING:
    from mlbench.training.side import MakeSide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SFT:
    """Supervised fine-tuning.

    Attributes:
        languages: Languages of the rows: "pivot", "all", or codes.
        benign: Whether harmless requests with helpful answers are mixed in, as corpora of the field do. Without
            them a model can lower the loss by refusing everything.
    """

    paper: ClassVar[str] = "arXiv:2203.02155"
    fidelity: ClassVar[Fidelity] = "baseline"
    presets: ClassVar[Mapping[str, Preset]] = {
        "control": Preset(note="as many steps in the pivot language alone", fields={"languages": "pivot"}),
        "translated": Preset(
            note="the upper reference: translated safety data in every training language", fields={"languages": "all"}
        ),
    }
    citation: ClassVar[str] = """@inproceedings{ouyang2022training,
  title = {Training language models to follow instructions with human feedback},
  author = {Ouyang, Long and Wu, Jeffrey and Jiang, Xu and Almeida, Diogo and Wainwright, Carroll and Mishkin, Pamela
            and Zhang, Chong and Agarwal, Sandhini and Slama, Katarina and Ray, Alex and others},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
  note = {arXiv:2203.02155},
}"""

    languages: Literal["pivot", "all"] | tuple[Language, ...] = "pivot"
    benign: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        """Return the pivot's answers, and those of the other languages only where it trains on them."""
        return answer_needs(self.languages, benign=self.benign)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse languages without such rows.

        Raises:
            UserError: A language is not in the corpus, or has no answers there.
        """
        preferences(corpus, self.languages, benign=self.benign, rejected=False)

    def align(self, start: Checkpoint, corpus: Corpus, run: Run, side: MakeSide | None = None) -> Checkpoint:
        """Return the model trained on the chosen answers."""
        from mlbench import training

        rows = preferences(corpus, self.languages, benign=self.benign, rejected=False)
        return training.sft(start, rows, run, side=side)


plugin: type[Method] = SFT
