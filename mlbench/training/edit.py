"""Weights changed in closed form: linear algebra of the solution, and its adapter, a low-rank change of some rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from mlbench import models
from mlbench.core import Checkpoint, Run
from mlbench.errors import JobError
from mlbench.training import fit
from mlbench.training.activations import Gram


class Factor(NamedTuple):
    """L with L L^T = quadratic + 10^raised ridge I."""

    lower: Tensor
    raised: int


def factor(quadratic: Tensor, ridge: float) -> Factor:
    """Return the Cholesky factor of quadratic + ridge I, the ridge raised tenfold up to three times where it must be.

    Raises:
        JobError: Even then the matrix is not positive definite.
    """
    unit = torch.eye(len(quadratic)).to(quadratic)
    for raised in range(4):
        lower, failed = torch.linalg.cholesky_ex(quadratic + 10**raised * ridge * unit)
        if not failed:
            return Factor(lower, raised)
    raise JobError(f"the normal equations are not positive definite even with lambda = {1000 * ridge:.3g}")


def free_directions(gram: Tensor, protected: float) -> Tensor:
    """Return an orthonormal basis of the directions that are not protected, (dim, free).

    Protected are the strongest eigenvectors of X^T X, at most that share of all dimensions; directions that X does not
    have need no protection.
    """
    values, vectors = torch.linalg.eigh(gram)  # ascending
    used = int((values > values[-1] * len(values) * torch.finfo(values.dtype).eps).sum())
    free: Tensor = vectors[:, : len(values) - min(int(protected * len(values)), used)]
    return free


class LowRank(NamedTuple):
    """dW = left @ right^T: left (inputs, rank), right (units, rank)."""

    left: Tensor
    right: Tensor


@dataclass(frozen=True, kw_only=True)
class RowEdit:
    """A change of some units of a linear layer: weight[units] += right @ left^T; all other rows stay as they are.

    Attributes:
        module: Name of the layer within the model.
        units: (m,), rows of its weight.
        left: (inputs, rank), float64.
        right: (m, rank), float64.
    """

    module: str
    units: Tensor
    left: Tensor
    right: Tensor

    @property
    def delta(self) -> Tensor:
        """Return the change, (m, inputs)."""
        return self.right @ self.left.T


class Target(NamedTuple):
    """What one projection is to change.

    Attributes:
        module: Name of the projection within the model.
        units: (m,), rows of its weight.
        weight: (inputs, m), those rows, transposed.
        fit: (rows, m), by how much their outputs are to change on the rows to fit.
        held: The same on the rows held out.
    """

    module: str
    units: Tensor
    weight: Tensor
    fit: Tensor
    held: Tensor


class Result(NamedTuple):
    """How the edit of one layer does on prompts held out; of several projections the one that does worse counts.

    Attributes:
        gap_closed: 1 - |X dW - D|^2 / |D|^2 over all projections; 0 where there is no gap.
        benign_change: |X_safe dW| / |X_safe W_S|.
        relative_update: |dW| / |W_S|.
        ridge: Strength of the penalty on |dW| that was used.
        raised: How often that had to be raised tenfold.
    """

    layer: int
    edits: tuple[RowEdit, ...]
    gap_closed: float
    benign_change: float
    relative_update: float
    ridge: float
    raised: int

    @property
    def units(self) -> dict[str, int]:
        """Return how many units of each projection may change."""
        return {edit.module.split(".")[-1]: len(edit.units) for edit in self.edits}

    @property
    def neurons(self) -> int:
        """Return how many units may change."""
        return sum(self.units.values())

    @property
    def facts(self) -> dict[str, float]:
        """Return it as a line of a table of layers."""
        return {name: value for name, value in self._asdict().items() if name != "edits"} | self.units


def measure(
    layer: int,
    targets: Sequence[Target],
    edits: Sequence[RowEdit],
    low: Tensor,
    safe: Gram,
    *,
    ridge: float,
    raised: int,
) -> Result:
    """Return how the edits of a layer do, given held-out inputs (rows, inputs) and the benign ones' second moments."""
    left: float = sum(
        (low @ edit.delta.T - target.held).square().sum().item() for target, edit in _both(targets, edits)
    )
    gaps = sum(target.held.square().sum().item() for target in targets)
    benign = [_over(safe.norm(edit.delta.T), safe.norm(target.weight)) for target, edit in _both(targets, edits)]
    update = [_over(edit.delta.norm().item(), target.weight.norm().item()) for target, edit in _both(targets, edits)]
    return Result(layer, tuple(edits), 1 - left / gaps if gaps else 0.0, max(benign), max(update), ridge, raised)


def _both(targets: Sequence[Target], edits: Sequence[RowEdit]) -> list[tuple[Target, RowEdit]]:
    return list(zip(targets, edits, strict=True))


def _over(one: float, other: float) -> float:
    return one / other if other else 0.0


@torch.no_grad()
def add(model: nn.Module, edits: Sequence[RowEdit]) -> None:
    """Change a model in memory; the sum is rounded to the model's precision once."""
    for edit in edits:
        weight = _weight(model, edit.module)
        weight[edit.units] = (weight[edit.units].double() + edit.delta).to(weight.dtype)


def save(start: Checkpoint, edits: Sequence[RowEdit], rank: int, run: Run) -> Checkpoint:
    """Return the start model with the edits, written below the run's folder as one LoRA adapter with scaling 1.

    The adapter has this rank in each layer; an edit of a lower rank is filled up with zeros. Records the size of the
    edits, as `fit.finish` does that of a training, and for bfloat16 weights how much of the change rounding takes:
    `rounding_loss` = |applied - computed| / |computed|.
    """
    with fit.quiet():
        model = models.load(start, device="cpu").model
        total = sum(weight.numel() for weight in model.parameters())
        before = [_rows(model, edit).clone() for edit in edits]
        wrapped = get_peft_model(model, _config(edits, rank))
        for edit in edits:
            _fill(wrapped.get_submodule(f"base_model.model.{edit.module}"), edit)
        run.record(
            steps=0,
            trainable_parameters=sum(rank * (len(edit.units) + len(edit.left)) for edit in edits),
            total_parameters=total,
            weight_change=fit.weight_change(wrapped, start),
        )
        folder = (run.folder / "adapter").resolve()
        wrapped.save_pretrained(folder)
        if start.dtype == "bfloat16":
            merged = wrapped.merge_and_unload(safe_merge=True)
            run.record(rounding_loss=_rounding_loss(merged, before, edits))
    return replace(start, adapters=(*start.adapters, str(folder)))


def _config(edits: Sequence[RowEdit], rank: int) -> LoraConfig:
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[edit.module for edit in edits],
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


@torch.no_grad()
def _fill(layer: Any, edit: RowEdit) -> None:
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    rank = edit.left.shape[1]
    down.zero_()
    up.zero_()
    down[:rank] = edit.left.T
    up[edit.units.to(up.device), :rank] = edit.right.to(up)


def _rounding_loss(merged: nn.Module, before: Sequence[Tensor], edits: Sequence[RowEdit]) -> float:
    lost = wanted = 0.0
    for rows, edit in zip(before, edits, strict=True):
        delta = edit.delta.cpu()
        lost += (_rows(merged, edit).double() - rows.double() - delta).square().sum().item()
        wanted += delta.square().sum().item()
    return float((lost / wanted) ** 0.5) if wanted else 0.0


def _rows(model: nn.Module, edit: RowEdit) -> Tensor:
    weight = _weight(model, edit.module)
    return weight[edit.units.to(weight.device)]


def _weight(model: nn.Module, module: str) -> Tensor:
    weight = model.get_submodule(module).weight
    assert isinstance(weight, Tensor)
    return weight.detach()
