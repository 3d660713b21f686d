"""Objectives on the mean log-probabilities of a chosen and a rejected answer, without a reference model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from mlbench.core import Example
from mlbench.models import Loaded
from mlbench.training import answers
from mlbench.training.objective import MakeObjective, Objective
from mlbench.training.side import Terms


class PairTerms(NamedTuple):
    """What a loss says of each pair.

    Attributes:
        loss: (pairs,), with gradient.
        values: Further curves, each (pairs,).
    """

    loss: Tensor
    values: Mapping[str, Tensor]


PairLoss = Callable[[Tensor, Tensor], PairTerms]
"""(m_w, m_l) -> terms; both (pairs,), log pi(y|x) / |y| of the chosen and of the rejected answer, float32."""


def reference_free(loss: PairLoss, limit: int) -> MakeObjective:
    """Return the objective that is the mean of a loss over rows, for `training.train`.

    Args:
        loss: Of the answers' log-probabilities.
        limit: Longest dialogue in tokens.
    """

    def make(loaded: Loaded, rows: Sequence[Example]) -> Objective:
        chosen = answers.encode(loaded, rows, [row.chosen or "" for row in rows], limit)
        rejected = answers.encode(loaded, rows, [row.rejected or "" for row in rows], limit)
        pad_id = loaded.tokenizer.pad_token_id

        def objective(model: nn.Module, numbers: Sequence[int], step: int) -> Terms:
            dialogues = [kind[number] for kind in (chosen, rejected) for number in numbers]
            better, worse = answers.log_probs(model, dialogues, pad_id).means.chunk(2)
            found = loss(better, worse)
            values = {name: value.detach().mean().item() for name, value in found.values.items()}
            return Terms(found.loss.mean(), values, sum(len(each.prompt) + len(each.answer) for each in dialogues))

        return objective

    return make
