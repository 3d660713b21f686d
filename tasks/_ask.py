"""Questions of lm-evaluation-harness put to a checkpoint, and its scores of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlbench.core import Answer, Prompt
from mlbench.errors import DataError, PluginError

if TYPE_CHECKING:
    from mlbench.models import Loaded

SEED = 1234
"""Of the examples shown before a question, and of anything a task draws; the harness's own default."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What a task file may call its longest answer."""


class Scored(NamedTuple):
    """A task object of the harness, and which of its scores is read."""

    task: Any
    metric: str
    sieve: str


class Document(NamedTuple):
    """A prompt, and where the harness has it: name of the task and number of the document."""

    prompt: Prompt
    task: str
    number: int


class Way(NamedTuple):
    """How a checkpoint is asked.

    Attributes:
        max_new_tokens: Longest answer where the task file names none.
    """

    chat_template: bool
    max_new_tokens: int
    batch_size: int


def ask(loaded: Loaded, tasks: Mapping[str, Scored], wanted: Sequence[Document], way: Way) -> list[Answer]:
    """Return the answers to documents of one language, in order, each with its score: 1 right, 0 wrong.

    Raises:
        DataError: A question does not fit into the model, of which the harness would cut off the beginning.
        PluginError: The score that is read is neither 0 nor 1.
    """
    from lm_eval import evaluate
    from transformers import set_seed

    lm = _model(loaded, way)
    numbers = {name: sorted({each.number for each in wanted if each.task == name}) for name in tasks}
    used = {name: tasks[name].task for name, asked in numbers.items() if asked}
    for task in used.values():
        task.set_fewshot_seed(SEED)
        if task.config.num_fewshot is None:
            task.set_config("num_fewshot", 0)
    set_seed(SEED)
    found = evaluate(
        lm=lm,
        task_dict={"tasks": used},
        # The harness looks each of its documents up in the list: no list is faster than a complete one.
        samples={name: numbers[name] for name, task in used.items() if len(numbers[name]) < len(task.eval_docs)},
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=_system_prompt(loaded, wanted[0].prompt, way),
        apply_chat_template=way.chat_template,
        fewshot_as_multiturn=way.chat_template,
    )
    samples = {
        (name, sample["doc_id"]): sample
        for name, rows in found["samples"].items()
        for sample in rows
        if sample["filter"] == tasks[name].sieve
    }
    return [_answer(lm, each, tasks[each.task], samples[each.task, each.number]) for each in wanted]


def _model(loaded: Loaded, way: Way) -> Any:
    from lm_eval.models.huggingface import HFLM

    class Asked(HFLM):  # type: ignore[misc]
        @property
        def max_gen_toks(self) -> int:
            return way.max_new_tokens

    return Asked(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=way.batch_size,
        # The chat template has already written the special tokens.
        add_bos_token=False if way.chat_template else None,
        # In bfloat16, likelihoods of different options would often be equal.
        softmax_dtype="float32",
    )


def _system_prompt(loaded: Loaded, prompt: Prompt, way: Way) -> str | None:
    from mlbench import models

    if way.chat_template:
        # The harness drops a system prompt for which the chat template has no place; this raises.
        models.render(loaded, prompt.text, prompt.language)
    prompts = loaded.checkpoint.system_prompts
    return prompts.get(prompt.language, prompts.get("*")) or None


def _answer(lm: Any, document: Document, scored: Scored, sample: Mapping[str, Any]) -> Answer:
    prompt, kind = document.prompt, scored.task.OUTPUT_TYPE
    assert sample["doc_hash"] == prompt.reference, "the harness scored another document than the one we planned"
    score = sample.get(scored.metric)
    if score not in (0, 1):
        raise PluginError(
            f"{scored.metric!r} of {document.task!r} is {score!r} for {prompt.id!r}: neither right, 1, nor wrong, 0",
            hint="name another one in `metric`",
        )
    _require_room(lm, document, sample["arguments"])
    responses = sample["filtered_resps"]
    if kind == "multiple_choice":
        best = _best(prompt.choices, [likelihood for likelihood, _ in responses], scored.metric)
        return Answer(prompt=prompt, text=prompt.choices[best], choice=best, score=float(score))
    if kind != "generate_until":
        return Answer(prompt=prompt, text=str(responses[0]), score=float(score))
    text = sample["resps"][0][0]
    # The harness tells what was written up to a stop, but not whether a stop was met: counted anew.
    tokens = len(lm.tok_encode(text, add_special_tokens=False))
    truncated = tokens >= _longest(lm, sample["arguments"])
    return Answer(prompt=prompt, text=text, tokens=tokens, truncated=truncated, score=float(score))


def _best(choices: Sequence[str], likelihoods: Sequence[float], metric: str) -> int:
    """Return the option that the metric takes for the model's answer."""
    sizes = {"acc_norm": [len(choice) for choice in choices], "acc_bytes": [len(choice.encode()) for choice in choices]}
    each = sizes.get(metric, [1] * len(choices))
    return max(range(len(choices)), key=lambda index: likelihoods[index] / each[index])


def _longest(lm: Any, arguments: Sequence[Any]) -> int:
    options = arguments[0][1]
    return next((int(options[name]) for name in LENGTHS if options.get(name) is not None), lm.max_gen_toks)


def _require_room(lm: Any, document: Document, arguments: Sequence[Any]) -> None:
    for context, after in (pair[:2] for pair in arguments if len(pair) > 1):
        size = len(lm.tok_encode(context))
        size += (
            len(lm.tok_encode(after, add_special_tokens=False)) if isinstance(after, str) else _longest(lm, arguments)
        )
        if size > lm.max_length:
            raise DataError(
                f"{document.prompt.id!r} of {document.task!r} takes {size} tokens with its answer, and the model "
                f"{lm.max_length}: the harness would cut off the beginning of the question",
                hint="show fewer examples (num_fewshot), or allow shorter answers (generation.max_new_tokens)",
            )
