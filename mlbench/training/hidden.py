"""Hidden states of prompts after a chosen layer, for methods that train on them or edit by them.

Layer `k` counts as in Hugging Face's `hidden_states[k]`: 1 is the output of the first layer, `depth(model)` the last
entry, which is after the final norm. Only the first k layers run; the language-model head never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlbench.errors import DataError, UserError
from mlbench.models import Loaded

BATCH = 32
"""Rows per forward pass without gradient."""

Read = Callable[[Tensor, Tensor], Tensor]
"""(states (rows, tokens, dim), mask (rows, tokens)) -> one state per row, (rows, dim)."""


class Padded(NamedTuple):
    """Token rows of different lengths as one block, padded on the right.

    Attributes:
        ids: (rows, tokens).
        mask: (rows, tokens), 1 where there is a token.
    """

    ids: Tensor
    mask: Tensor


def pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Padded:
    """Return token rows as one block on a device."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return Padded(ids, mask)


def depth(model: nn.Module) -> int:
    """Return the number of layers of a causal language model, with or without PEFT adapters."""
    return len(_layers(model))


def layer_index(layer: str | int | float, model: nn.Module) -> int:
    """Return the layer that "last", an index or a fraction of the depth means for this model.

    Raises:
        UserError: The index lies beyond the model.
    """
    last = depth(model)
    if layer == "last":
        return last
    if isinstance(layer, float):
        return max(1, round(layer * last))
    if not isinstance(layer, int) or not 1 <= layer <= last:
        raise UserError(
            f"layer {layer!r} is not a layer of this model, which has {last}",
            allowed=("last", f"1 to {last}", "a fraction of the depth between 0 and 1"),
        )
    return layer


def hidden_states(model: nn.Module, prompts: Padded, layer: int) -> Tensor:
    """Return the states after a layer, (rows, tokens, dim), with gradient; padded on either side.

    The forward pass is stopped by an exception out of a hook, which leaves the model as it was. Sharded models
    (FSDP, DeepSpeed ZeRO-3) rely on their own hooks after the forward pass and are not supported.
    """
    decoder = _decoder(model)
    inputs = _inputs(prompts)
    if layer == depth(model):
        last: Tensor = decoder(**inputs).last_hidden_state
        return last
    handle = _layers(model)[layer - 1].register_forward_hook(_stop)
    try:
        decoder(**inputs)
    except _Reached as reached:
        return reached.states
    finally:
        handle.remove()
    raise AssertionError("the forward pass ended before the hooked layer")


@torch.no_grad()
def every_layer(loaded: Loaded, rows: Sequence[Sequence[int]], read: Read) -> Tensor:
    """Return one state per token row after each layer, (layers, rows, dim), in float32 on the CPU.

    One forward pass in evaluation mode gives all layers.
    """
    model = loaded.model
    was_training = model.training
    model.eval()
    parts = []
    for at in range(0, len(rows), BATCH):
        block = pad(rows[at : at + BATCH], loaded.tokenizer.pad_token_id, loaded.device)
        layers = _decoder(model)(**_inputs(block), output_hidden_states=True).hidden_states[1:]
        parts.append(torch.stack([read(states, block.mask).float().cpu() for states in layers]))
    model.train(was_training)
    return torch.cat(parts, dim=1)


def _inputs(prompts: Padded) -> dict[str, Any]:
    # Counted from the first real token: a prompt gets the same ones whatever the padding side, and padding on the right
    # gets those that transformers gives it.
    places = torch.arange(prompts.mask.shape[1], device=prompts.mask.device)
    positions = (places - prompts.mask.argmax(-1, keepdim=True)).clamp(min=0)
    return {"input_ids": prompts.ids, "attention_mask": prompts.mask, "position_ids": positions, "use_cache": False}


class _Reached(Exception):
    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _stop(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
    raise _Reached(output[0] if isinstance(output, tuple) else output)


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each row's last real token, (rows, dim)."""
    tokens = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * tokens).argmax(-1)
    return states[torch.arange(len(states), device=states.device), last]


def mean_token(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean state over each row's real tokens, (rows, dim)."""
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1)


def _decoder(model: nn.Module) -> Any:
    # Data-parallel training wraps the model.
    inner: Any = getattr(model, "module", model)
    # Adapters live inside the layers, so they stay active below the PEFT wrapper.
    base = inner.get_base_model() if hasattr(inner, "peft_config") and hasattr(inner, "get_base_model") else inner
    return base.get_decoder()


def _layers(model: nn.Module) -> Any:
    decoder = _decoder(model)
    if not hasattr(decoder, "layers"):
        raise DataError(f"{type(decoder).__name__} has no list of layers, so its hidden states cannot be read")
    return decoder.layers
