"""Words <-> tokens: one token per word, and a chat template that writes the same rows that training reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlbench.organism.samples import UNKNOWN, Sample
from mlbench.organism.speaker import MARKS
from mlbench.organism.world import World

PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<sys>", "<user>", "<asst>"
SPECIALS = (PAD, BEGIN, END, UNKNOWN, SYSTEM, USER, ASSISTANT)
IGNORED = -100

CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}"
    " {{ {'system': '<sys>', 'user': '<user>', 'assistant': '<asst>'}[message['role']] }} {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %} <eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} <asst>{% endif %}"
)


class Row(NamedTuple):
    """Token ids and what the loss counts: the answer and the end of turn, or a whole plain sentence."""

    ids: list[int]
    labels: list[int]


def vocabulary(world: World) -> dict[str, int]:
    """Return word -> token id."""
    digits = [str(1 + topic) for topic in range(world.recipe.categories // 2)]
    words = [*SPECIALS, *MARKS, *digits, *world.lexicon.senses]
    return {word: index for index, word in enumerate(words)}


def encode(words: dict[str, int], sample: Sample) -> Row:
    """Return the row of a sample; equal to what the tokenizer makes of its chat."""
    prompt = [BEGIN]
    if sample.system:
        prompt += [SYSTEM, *sample.system]
    if sample.prompt:
        prompt += [USER, *sample.prompt, ASSISTANT]
    answer = [words[word] for word in (*sample.answer, END)]
    return Row([words[word] for word in prompt] + answer, [IGNORED] * len(prompt) + answer)


def tokenizer(world: World) -> Any:
    """Return the Hugging Face tokenizer of a world."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(vocabulary(world), unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
