"""ORPO: likelihood of the chosen answer plus its odds ratio against the rejected one, without a reference model.

    L = - m_w  +  lambda * - log sigmoid( log odds_w - log odds_l ),   odds = p / (1 - p),  p = exp(m)

m = log pi(y|x) / |y|, so that p is the geometric mean of the probabilities of an answer's tokens.

Source: Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model", arXiv:2403.07691 (EMNLP 2024).
Deviations from the released code (github.com/xfactlab/orpo):
- the likelihood is that of the answer, as in the paper; the code counts the prompt's tokens as well unless told not to;
- it is a mean over answers of the mean over an answer's tokens, the code's a mean over all tokens of a batch;
- log(1 - p) is computed so that it stays finite where p rounds to 1;
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

CERTAIN = -1e-6
"""The largest m; an answer likelier than that has no gradient left in its odds."""


def log_odds(means: Tensor) -> Tensor:
    """Return log p - log(1 - p) of p = exp(m), at most 13.8, for m = mean log-probabilities of any shape."""
    import torch

    means = means.clamp(max=CERTAIN)
    # 1 - p = -expm1(m): 1 - exp(m) would round to 0 for p near 1
    return means - torch.log(-torch.expm1(means))


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return - log sigmoid of the log odds ratio of each pair, (pairs,).

    Args:
        chosen: (pairs,), m_w, the mean log-probability per token of the chosen answer.
        rejected: (pairs,), m_l.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(log_odds(chosen) - log_odds(rejected))


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ORPO:
    """Odds ratio preference optimisation.

    Attributes:
        weight: lambda of the odds ratio; 0.1 is what the released Mistral models were trained with, where it is called
            alpha. 0 is fine-tuning on the chosen answers.
        languages: Languages of the rows: "pivot", "all", or codes.
        benign: Whether harmless requests (helpful answer chosen, refusal rejected) are mixed in.
    """

    paper: ClassVar[str] = "arXiv:2403.07691"
    fidelity: ClassVar[Fidelity] = "baseline"
    presets: ClassVar[Mapping[str, Preset]] = {
        "mistral": Preset(
            note="github.com/xfactlab/orpo, Mistral-ORPO-beta: 4 GPUs x 8 rows; its inverse square root schedule with "
            "200 warm-up steps is not offered here",
            fields={"weight": 0.1},
            training={"learning_rate": 5e-6, "batch_size": 32, "lora_rank": 0},
        )
    }
    citation: ClassVar[str] = """@inproceedings{hong2024orpo,
  title = {{ORPO}: Monolithic Preference Optimization without Reference Model},
  author = {Hong, Jiwoo and Lee, Noah and Thorne, James},
  booktitle = {Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing},
  year = {2024},
  note = {arXiv:2403.07691},
}"""

    weight: Annotated[float, Field(ge=0)] = 0.1
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

        ratio = log_odds(chosen) - log_odds(rejected)
        loss = -chosen + self.weight * odds_ratio_loss(chosen, rejected)
        values = {"orpo/likelihood": -chosen, "orpo/log_odds_ratio": ratio, "orpo/accuracy": (ratio > 0).float()}
        return PairTerms(loss, values)


plugin: type[Method] = ORPO
