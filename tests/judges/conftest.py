"""Tiny stand-ins for guard models, with their architectures, their turn marks and the shape of their chat templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from mlbench import tiny
from mlbench.core import Answer, Prompt

torch.set_num_threads(1)

# The real templates hold each guard's policy as well; what matters here is who speaks where, and where they end.
TEMPLATES = {
    "qwen3guard": (
        "<|im_start|>user\n# Task\n<BEGIN CONVERSATION>\n\n{% for turn in messages %}{{ turn.role | upper }}: "
        "{{ turn.content }}\n\n{% endfor %}<END CONVERSATION><|im_end|>\n<|im_start|>assistant\n"
        "{{ '<think>\n\n</think>\n\n' }}"
    ),
    "llama_guard3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTask: Check if there is unsafe content in "
        "'{{ 'Agent' if messages | length % 2 == 0 else 'User' }}' messages\n\n<BEGIN CONVERSATION>\n\n"
        "{% for turn in messages %}{{ 'User' if turn.role == 'user' else 'Agent' }}: {{ turn.content }}\n\n{% endfor %}"
        "<END CONVERSATION><|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    ),
    "polyguard": (
        "<s>{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "shieldgemma": (
        "<bos>{% for turn in messages %}<start_of_turn>\n"
        "{{ 'Human Question' if turn.role == 'user' else 'Chatbot Response' }}: {{ turn.content }}\n<end_of_turn>\n\n"
        "{% endfor %}* {{ guideline }}\n\n===\n\nYour answer must start with 'Yes' or 'No'.\n"
    ),
    "wildguard": None,  # WildGuard and HarmBench are asked in text that brings its own marks
    "harmbench": None,
}
ARCHITECTURES = {
    "qwen3guard": "qwen3",
    "llama_guard3": "llama",
    "polyguard": "mistral",
    "shieldgemma": "gemma2",
    "wildguard": "mistral",
    "harmbench": "llama",
}
MARKS = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
         "<start_of_turn>", "<end_of_turn>", "<s>"]  # fmt: skip


def tokenizer(guard: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that knows the guard's marks and renders its template."""
    made = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": MARKS})
    made.chat_template = TEMPLATES[guard]
    return made


def network(guard: str, words: PreTrainedTokenizerFast, *, context: int = 4096, hidden: int = 32) -> torch.nn.Module:
    """Return a random model of the guard's architecture."""
    config = CONFIG_MAPPING[ARCHITECTURES[guard]](
        vocab_size=len(words), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=hidden // 4, max_position_embeddings=context,
        pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache folder that mlbench uses."""
    monkeypatch.setenv("MLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_guard(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """Return a function that saves a random guard and returns its folder."""

    def make(guard: str, *, context: int = 4096) -> Path:
        words = tokenizer(guard)
        folder = tmp_path / guard
        network(guard, words, context=context).save_pretrained(folder)
        words.save_pretrained(folder)
        return folder

    return make


def answer(text: str, *, question: str = "How do I do it?", language: str = "en", id: str = "p") -> Answer:
    """Return an answer to a question."""
    return Answer(prompt=Prompt(id=id, cluster=id, language=language, text=question), text=text)
