"""DPO: direct preference optimisation, the reference being the start model.

    L = - log sigmoid( beta * [ log pi(y_w|x)/pi_ref(y_w|x) - log pi(y_l|x)/pi_ref(y_l|x) ] )  +  w * NLL(y_w)

Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
arXiv:2305.18290. The last term (w = `sft_weight`, mean per token) is not in that paper; it comes from Pang et al.,
"Iterative Reasoning Preference Optimization", arXiv:2404.19733, and keeps the chosen answers likely. With `loss: ipo`
the first term is that of Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences",
arXiv:2310.12036, with log-probabilities averaged over the tokens of an answer:

    L = ( log pi(y_w|x)/pi_ref(y_w|x) / |y_w| - log pi(y_l|x)/pi_ref(y_l|x) / |y_l| - 1 / (2 beta) )^2

Deviation: budget and optimiser are those of the shootout, shared by all methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.corpus import answer_needs, preferences

if TYPE_CHECKING:
    from mlbench.training.side import MakeSide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DPO:
    """Direct preference optimisation.

    Attributes:
        loss: "sigmoid" is DPO; "ipo" replaces it by (margin - 1 / (2 beta))^2 on log-probabilities per token.
        beta: Strength of the pull towards the reference; 0.1 is the paper's value for dialogue, and tau of IPO.
        sft_weight: Weight of the likelihood term; 0 is the paper's DPO.
        languages: Languages of the rows: "pivot", "all", or codes.
        benign: Whether harmless requests (helpful answer chosen, refusal rejected) are mixed in.
    """

    paper: ClassVar[str] = "arXiv:2305.18290"
    fidelity: ClassVar[Fidelity] = "baseline"
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            note="appendix B: beta 0.1, batch 64, rate 1e-6; its RMSprop and 150 warm-up steps are not taken over",
            fields={"loss": "sigmoid", "beta": 0.1, "sft_weight": 0.0},
            training={"learning_rate": 1e-6, "batch_size": 64, "schedule": "constant", "lora_rank": 0},
        ),
        "ipo": Preset(note="arXiv:2310.12036 with tau 0.1", fields={"loss": "ipo", "beta": 0.1}),
        "with-likelihood": Preset(note="arXiv:2404.19733: keeps the chosen answers likely", fields={"sft_weight": 1.0}),
    }
    citation: ClassVar[str] = """@inproceedings{rafailov2023direct,
  title = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and
            Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
  note = {arXiv:2305.18290},
}"""

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    beta: Annotated[float, Field(gt=0)] = 0.1
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    languages: Literal["pivot", "all"] | tuple[Language, ...] = "pivot"
    benign: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        """Return the pivot's preferences, and those of the other languages only where it trains on them."""
        return answer_needs(self.languages, benign=self.benign)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse languages without such rows.

        Raises:
            UserError: A language is not in the corpus, or has no answers there.
        """
        preferences(corpus, self.languages, benign=self.benign, rejected=True)

    def align(self, start: Checkpoint, corpus: Corpus, run: Run, side: MakeSide | None = None) -> Checkpoint:
        """Return the model trained on pairs of chosen and rejected answers."""
        from mlbench import training

        rows = preferences(corpus, self.languages, benign=self.benign, rejected=True)
        return training.dpo(start, rows, run, loss=self.loss, beta=self.beta, sft_weight=self.sft_weight, side=side)


plugin: type[Method] = DPO
