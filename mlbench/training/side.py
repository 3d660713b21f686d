"""A loss on prompts of its own, added to the loss of any trainer.

Its batches come from a stream indexed by the optimiser step, apart from the trainer's rows: no column is added to the
data set, so none can be dropped or swallowed on the way to the loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mlbench.models import Loaded

T = TypeVar("T")


class Terms(NamedTuple):
    """A side loss and what to log beside it.

    Attributes:
        loss: Mean over the items, a scalar with gradient.
        values: Further curves, each a mean over the items. A side loss may leave out a value that its items do not
            define; the curve is then the mean over the parts of the step that have it.
        tokens: Tokens that were read.
    """

    loss: Tensor
    values: Mapping[str, float]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """What a trainer adds to its own loss.

    Attributes:
        name: Prefix of the logged curves.
        weight: Factor of the loss, lambda; with 0 the trainer's weights stay the same bit for bit.
        items: Step -> the items of that step; none means that the step goes without.
        loss: (model, items) -> the mean loss over these items. It runs in the trainer's autocast.
        extra: A module of the loss, dropped afterwards, e.g. a projection; trained along unless it is frozen.
        extra_learning_rate: Peak rate of its parameters, under the schedule of the trainer.
    """

    name: str
    weight: float
    items: Callable[[int], Sequence[Any]]
    loss: Callable[[nn.Module, Sequence[Any]], Terms]
    extra: nn.Module | None = None
    extra_learning_rate: float = 0.0


MakeSide = Callable[["Loaded"], Side]
"""Start model -> the side loss, with what it needs of that model computed."""


class SideLoss:
    """Mixin that adds `self.side` to the loss of a `transformers.Trainer`; put it before the trainer's class.

    The items of a step are dealt out over its micro-batches and processes, each part weighted by its share, so that
    one optimiser step sees the mean over all of them once.
    """

    side: Side | None = None
    side_tokens: int = 0
    curves: defaultdict[str, float]
    shares: defaultdict[str, float]

    def attach(self, side: Side | None) -> None:
        """Set what is added; None leaves the trainer's loss as it is."""
        self.side = side
        self.curves = defaultdict(float)
        self.shares = defaultdict(float)
        self._micro_batches = 0

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the trainer's loss, plus the weighted side loss while training."""
        trainer: Any = self
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if self.side is None or not model.training:
            return loss
        extra = self._part(trainer, model, self.side)
        if extra is None:
            return loss
        # The trainer divides a loss by the micro-batches unless it was already normalised over all of them.
        divides = trainer.loss_is_scaled_for_ga is False or num_items_in_batch is None
        return loss + extra * (trainer.args.gradient_accumulation_steps if divides else 1)

    def _part(self, trainer: Any, model: nn.Module, side: Side) -> Tensor | None:
        """Return lambda x the share of this micro-batch and process in the step's mean."""
        processes = trainer.accelerator.num_processes
        micro_batches = trainer.args.gradient_accumulation_steps
        turn = (self._micro_batches % micro_batches) * processes + trainer.accelerator.process_index
        self._micro_batches += 1
        items = side.items(trainer.state.global_step)
        mine = items[turn :: micro_batches * processes]
        if not mine:
            return None
        # A forward pass below the wrapped model is outside its autocast.
        with trainer.accelerator.autocast():
            terms = side.loss(trainer.accelerator.unwrap_model(model), mine)
        share = len(mine) / len(items)
        self.side_tokens += terms.tokens
        for name, value in {"loss": terms.loss.item(), **terms.values}.items():
            self.curves[f"{side.name}/{name}"] += value * share
            self.shares[f"{side.name}/{name}"] += share
        # Gradients are averaged over processes afterwards.
        scaled: Tensor = terms.loss * (side.weight * share * processes)
        return scaled

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the curves of the step to what the trainer logs."""
        parts = gather((dict(self.curves), dict(self.shares)))
        for name in dict.fromkeys(name for curves, _ in parts for name in curves):
            share = sum(shares.get(name, 0.0) for _, shares in parts)
            # A trainer's own curves have no shares: they are sums already divided.
            logs[name] = sum(curves.get(name, 0.0) for curves, _ in parts) / (share or 1.0)
        self.curves.clear()
        self.shares.clear()
        super().log(logs, start_time)  # type: ignore[misc]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the trainer's optimiser with the extra module as one more group."""
        trainer: Any = self
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)  # type: ignore[misc]
        if self.side is not None and self.side.extra is not None:
            extra = self.side.extra.to(trainer.args.device)
            trained = [parameter for parameter in extra.parameters() if parameter.requires_grad]
            if trained:
                optimizer.add_param_group({"params": trained, "lr": self.side.extra_learning_rate, "weight_decay": 0.0})
                optimizer.register_step_pre_hook(_average_gradients)
                # The trainer empties the gradients of its model alone; these would add up over the steps.
                optimizer.register_step_post_hook(lambda *_: extra.zero_grad())
        return optimizer


def gather(value: T) -> list[T]:
    """Return the values that the processes of one training hold, or this one's alone."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _average_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    # The extra module is outside the wrapped model, so nothing else averages its gradients over processes.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for parameter in optimizer.param_groups[-1]["params"]:
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad, op=torch.distributed.ReduceOp.SUM)
                parameter.grad /= torch.distributed.get_world_size()
