"""Load a checkpoint and ask it: chat template, batched generation, log-likelihood of choices.

Only safetensors are read and no remote code is run. Greedy decoding is the default everywhere; what is sampled is the
same whatever the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mlbench import sampling
from mlbench.core import Answer, Checkpoint, Language, Prompt
from mlbench.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint in memory, adapters merged, in evaluation mode."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    checkpoint: Checkpoint

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def speaker(self) -> sampling.Speaker:
        """What sampling has to know of the tokenizer."""
        return sampling.Speaker(self.tokenizer.pad_token_id, tuple(sorted(stop_tokens(self))))


def load(checkpoint: Checkpoint, device: str | None = None) -> Loaded:
    """Return a fresh copy of a checkpoint, its adapters merged in order.

    Args:
        checkpoint: What to load.
        device: "cpu", "cuda", ...; None takes the GPU where there is one.

    Raises:
        DataError: The folder is missing, has only pickled weights, or has no chat template.
    """
    refuse_pickles(checkpoint.base)
    words = tokenizer(checkpoint)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.base,
            revision=checkpoint.revision or None,
            dtype=getattr(torch, checkpoint.dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:  # ValueError: an unknown kind of model, or one that brings its own code
        raise _unloadable(checkpoint, error) from error
    for adapter in checkpoint.adapters:
        model = _merge(model, adapter)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Loaded(model=model.to(device).eval(), tokenizer=words, checkpoint=checkpoint)


def tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Return a checkpoint's tokenizer; it pads on the left and has a padding token.

    Raises:
        DataError: There is none, or it has no chat template.
    """
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint.base, revision=checkpoint.revision or None, padding_side="left", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise _unloadable(checkpoint, error) from error
    if found.chat_template is None:
        raise DataError(
            f"the tokenizer of {checkpoint.base!r} has no chat template",
            hint="mlbench asks every model through its chat template; save one with the tokenizer",
        )
    if found.pad_token_id is None:
        found.pad_token = found.eos_token
    return found


def _unloadable(checkpoint: Checkpoint, error: Exception) -> DataError:
    return DataError(f"cannot load the model {checkpoint.base!r}: {str(error).splitlines()[0]}")


def _merge(model: Any, adapter: str) -> Any:
    from peft import PeftModel

    refuse_pickles(adapter)
    with warnings.catch_warnings():
        # peft still asks transformers by the name that this version deprecates.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)


def refuse_pickles(folder: str) -> None:
    """Refuse a local folder that holds pickled weights but no safetensors.

    Raises:
        DataError: Loading a pickle would run whatever code is inside it.
    """
    path = Path(folder)
    if path.is_dir() and any(path.glob("*.bin")) and not any(path.glob("*.safetensors")):
        raise DataError(
            f"{folder} holds only pickled weights (*.bin), which can run code when they are loaded",
            hint="convert them once with transformers: model.save_pretrained(folder)",
        )


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Loaded:
    """Return an in-memory model in the form the functions below take."""
    return Loaded(model=model, tokenizer=tokenizer, checkpoint=Checkpoint(base=""))


def instructed(checkpoint: Checkpoint, system_prompt: str) -> Checkpoint:
    """Return a checkpoint whose own system prompts come after one that is asked of all."""
    if not system_prompt:
        return checkpoint
    own = checkpoint.system_prompts.items()
    after = {code: f"{system_prompt}\n\n{text}" if text else system_prompt for code, text in own}
    return replace(checkpoint, system_prompts={"*": system_prompt, **after})


def turns(checkpoint: Checkpoint, text: str, language: Language) -> list[dict[str, str]]:
    """Return the messages of a chat: the checkpoint's system prompt for the language, if any, and the user turn."""
    prompts = checkpoint.system_prompts
    system = prompts.get(language, prompts.get("*"))
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": text}]


def render(loaded: Loaded, text: str, language: Language) -> str:
    """Return the user turn in the chat template, with the checkpoint's system prompt and the generation prefix."""
    asked = turns(loaded.checkpoint, text, language)
    rendered = loaded.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert isinstance(rendered, str)
    return rendered


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        n: Answers per prompt; with a temperature of 0 they would all be the same.
        temperature: 0 takes the likeliest token.
        top_p: Smallest mass of the likeliest tokens that are sampled from.
        seed: Of the random numbers; those of an answer depend on its prompt and sample as well, and on nothing else.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def asked(self, prompts: Sequence[Prompt]) -> list[Asked]:
        """Return the answers to be written: the samples of one prompt stand side by side."""
        return [Asked(prompt, sample, self._seed(prompt, sample)) for prompt in prompts for sample in range(self.n)]

    def _seed(self, prompt: Prompt, sample: int) -> int:
        return sampling.seed(self.seed, prompt.id, prompt.language, sample)


class Asked(NamedTuple):
    """One answer to be written: to which prompt, which of its samples, and the seed of its random numbers."""

    prompt: Prompt
    sample: int
    seed: int


GREEDY = Sampling()


@torch.inference_mode()
def generate(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 32,
    drawn: Sampling = GREEDY,
    progress: Progress | None = None,
) -> list[Answer]:
    """Return the answers to each prompt, in the order of the prompts: one greedy answer, or `drawn.n` samples.

    Prompts are batched by length with left padding. A batch that does not fit into memory is halved.
    """
    asked = drawn.asked(prompts)
    rows = [tokens(loaded, render(loaded, each.prompt.text, each.prompt.language)) for each in asked]

    def work(part: list[int]) -> list[list[int]]:
        if drawn.temperature == 0:
            return _generate(loaded, [rows[i] for i in part], max_new_tokens)
        requests = [sampling.Request(rows[i], max_new_tokens, asked[i].seed) for i in part]
        decoding = sampling.Decoding(max_new_tokens, drawn.temperature, drawn.top_p)
        return sampling.together(loaded.model, requests, decoding, loaded.speaker)

    answers: dict[int, Answer] = {}
    with sampling.evaluation(loaded.model):
        for batch in batches(rows, batch_size, work):
            for index, new in zip(batch.indices, batch.output, strict=True):
                answers[index] = finished(loaded, asked[index], new, max_new_tokens)
            if progress:
                progress(len(answers), len(asked))
    return [answers[index] for index in range(len(asked))]


def finished(loaded: Loaded, asked: Asked, new: Sequence[int], max_new_tokens: int) -> Answer:
    """Return the answer that new tokens spell, up to the end of the turn; without one, the limit cut it off."""
    stops = stop_tokens(loaded)
    end = next((at for at, token in enumerate(new) if token in stops), None)
    tokens = list(new if end is None else new[:end])
    text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    truncated = end is None and len(new) >= max_new_tokens
    return Answer(prompt=asked.prompt, sample=asked.sample, text=text.strip(), tokens=len(tokens), truncated=truncated)


def stop_tokens(loaded: Loaded) -> set[int]:
    """Return the tokens that end an answer: those of the generation configuration and the end of sequence."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    return {token for token in [*stops, loaded.tokenizer.eos_token_id] if token is not None}


def _generate(loaded: Loaded, rows: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    pad = loaded.tokenizer.pad_token_id
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=list(loaded.speaker.stops)
    )
    # Model cards set penalties and the like (Qwen2 one on repetition), which `generate` would add to ours.
    kept, loaded.model.generation_config = loaded.model.generation_config, config
    try:
        output = loaded.model.generate(input_ids=ids, attention_mask=mask)
    finally:
        loaded.model.generation_config = kept
    new: list[list[int]] = output[:, width:].tolist()
    return new


@torch.inference_mode()
def choose(
    loaded: Loaded, prompts: Sequence[Prompt], *, batch_size: int = 32, progress: Progress | None = None
) -> list[Answer]:
    """Return the likeliest of each prompt's choices: the largest sum of token log-probabilities after the prompt."""
    questions = [tokens(loaded, render(loaded, prompt.text, prompt.language)) for prompt in prompts]
    rows, starts, owners = [], [], []
    for owner, prompt in enumerate(prompts):
        for choice in prompt.choices:
            option = loaded.tokenizer(choice, add_special_tokens=False)["input_ids"]
            rows.append(questions[owner] + list(option))
            starts.append(len(questions[owner]))
            owners.append(owner)
    scores: dict[int, float] = {}
    work = lambda part: _log_likelihoods(loaded, [rows[i] for i in part], [starts[i] for i in part])  # noqa: E731
    for batch in batches(rows, batch_size, work):
        scores.update(zip(batch.indices, batch.output, strict=True))
        if progress:
            progress(len(scores), len(rows))
    by_prompt: list[list[float]] = [[] for _ in prompts]
    for index, owner in enumerate(owners):
        by_prompt[owner].append(scores[index])
    return [_chosen(prompt, values) for prompt, values in zip(prompts, by_prompt, strict=True)]


def _chosen(prompt: Prompt, scores: list[float]) -> Answer:
    best = max(range(len(scores)), key=scores.__getitem__)
    return Answer(prompt=prompt, text=prompt.choices[best], choice=best)


def _log_likelihoods(loaded: Loaded, rows: list[list[int]], starts: list[int]) -> list[float]:
    width = max(map(len, rows))
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=loaded.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=loaded.device)
    logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return [
        each[i, start - 1 : len(row) - 1].sum().item() for i, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]


def tokens(loaded: Loaded, rendered: str) -> list[int]:
    """Return the tokens of a rendered chat."""
    # The chat template has already written the special tokens.
    return list(loaded.tokenizer(rendered, add_special_tokens=False)["input_ids"])


def context(loaded: Loaded) -> int:
    """Return how many tokens a model can read, prompt and answer together."""
    config = loaded.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)


@dataclass(frozen=True)
class Batch:
    """Rows that were worked on side by side, by their places, and what came out for each."""

    indices: list[int]
    output: list[Any]


def batches(rows: Sequence[list[int]], size: int, work: Callable[[list[int]], list[Any]]) -> Iterator[Batch]:
    """Yield the work over batches of similar length, longest first, so that memory fails early rather than late."""
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
    at = 0
    while at < len(order):
        part = order[at : at + size]
        try:
            output = work(part)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = max(1, size // 2)
            continue
        yield Batch(part, output)
        at += len(part)
