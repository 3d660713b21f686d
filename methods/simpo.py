"""SimPO: preference optimisation with length-normalised rewards, a target margin and no reference model.

    L = - log sigmoid( beta * m_w - beta * m_l - gamma )  +  w * (- m_w),   m = log pi(y|x) / |y|

Source: Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv:2405.14734 (NeurIPS
2024). The last term is off by default: w = `sft_weight` is not in that paper; its authors' code names it as a way to
keep the chosen answers likely. Deviations from the released code (github.com/princeton-nlp/SimPO):
- gamma is the margin itself, as in the paper; the code takes gamma / beta, called gamma_beta_ratio;
- |y| counts the end of turn as the chat template writes it;
- budget and optimiser are those of the shootout, shared by all methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.corpus import answer_needs, preferences

if TYPE_CHECKING:
    from torch import Tensor

    from mlbench.training.pairs import PairTerms
    from mlbench.training.side import MakeSide


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Return the loss of each pair, (pairs,).

    Args:
        chosen: (pairs,), m_w, the mean log-probability per token of the chosen answer.
        rejected: (pairs,), m_l.
        beta: Scale of the reward beta * m.
        gamma: Reward by which the chosen answer should lead.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected) - gamma)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SimPO:
    """Simple preference optimisation.

    Attributes:
        beta: Scale of the reward. 2.0 and 2.5 are released, and the authors have found 10 to work better in many cases;
            it has to be much larger than that of DPO, since m is a mean and not a sum.
        gamma: Target margin in units of the reward. The authors suggest gamma / beta = 0.5 to start with and a search
            from 0 to 1; released are 0.25 (2.5 x 0.1), 1.0 (2.0 x 0.5), 1.375 (2.5 x 0.55) and 1.6 (2.0 x 0.8).
        sft_weight: w, weight of the likelihood of the chosen answer, mean per token of each answer; 0 is the paper.
        languages: Languages of the rows: "pivot", "all", or codes.
        benign: Whether harmless requests (helpful answer chosen, refusal rejected) are mixed in.
    """

    paper: ClassVar[str] = "arXiv:2405.14734"
    fidelity: ClassVar[Fidelity] = "baseline"
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(
            note=f"github.com/princeton-nlp/SimPO, {model}, trained for one epoch of UltraFeedback",
            fields={"beta": beta, "gamma": gamma, "sft_weight": 0.0},
            training={"learning_rate": rate, "schedule": "cosine", "warmup": 0.1, "lora_rank": 0},
        )
        for name, model, beta, gamma, rate in (
            ("mistral-base", "Mistral 7B Base", 2.0, 1.6, 3e-7),
            ("mistral-instruct", "Mistral 7B Instruct", 2.5, 0.25, 5e-7),
            ("llama3-base", "Llama 3 8B Base", 2.0, 1.0, 6e-7),
            ("llama3-instruct", "Llama 3 8B Instruct", 2.5, 1.375, 1e-6),
        )
    }
    citation: ClassVar[str] = """@inproceedings{meng2024simpo,
  title = {{SimPO}: Simple Preference Optimization with a Reference-Free Reward},
  author = {Meng, Yu and Xia, Mengzhou and Chen, Danqi},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  note = {arXiv:2405.14734},
}"""

    beta: Annotated[float, Field(gt=0)] = 2.0
    gamma: Annotated[float, Field(ge=0)] = 1.0
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
        from mlbench.training.pairs import reference_free

        rows = preferences(corpus, self.languages, benign=self.benign, rejected=True)
        make = reference_free(self._terms, run.training.max_length)
        return training.train(start, rows, run, make, answers=True, side=side)

    def _terms(self, chosen: Tensor, rejected: Tensor) -> PairTerms:
        from mlbench.training.pairs import PairTerms

        loss = simpo_loss(chosen, rejected, beta=self.beta, gamma=self.gamma)
        if self.sft_weight:
            loss = loss - self.sft_weight * chosen
        values = {"simpo/margin": self.beta * (chosen - rejected), "simpo/accuracy": (chosen > rejected).float()}
        return PairTerms(loss, values)


plugin: type[Method] = SimPO
