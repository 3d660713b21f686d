"""Tiny random models and data, for checks of a plugin that take seconds on a CPU.

The tokenizer works on bytes, so it can write any language; the models have the traits that break careless code:
grouped-query attention, tied embeddings, normalised queries, capped logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from mlbench.core import Checkpoint, Corpus, Example, Training
from mlbench.corpus import preferences

LANGUAGES = ("en", "xa", "xb", "xc")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>")


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with a chat template."""
    letters = [*_SPECIAL, *sorted(ByteLevel.alphabet())]
    core = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = ByteDecoder()
    core.add_special_tokens(list(_SPECIAL))
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def model(folder: Path, architecture: str = "llama", *, layers: int = 2, seed: int = 0) -> Checkpoint:
    """Return a random model of that architecture, saved in a folder together with its tokenizer."""
    words = tokenizer()
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": architecture != "llama",
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](**sizes))
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return Checkpoint(base=str(folder))


def taught(folder: Path, architecture: str) -> Checkpoint:
    """Return a model that has learnt to end its answers, as any real one does, saved in a folder of its own."""
    folder.mkdir(parents=True)
    for name, content in _taught(architecture).items():
        (folder / name).write_bytes(content)
    return Checkpoint(base=str(folder))


@cache
def _taught(architecture: str) -> Mapping[str, bytes]:
    from mlbench import training

    with tempfile.TemporaryDirectory() as place:
        run = Log(folder=Path(place) / "run", training=budget(steps=40, batch_size=12, learning_rate=1e-2))
        rows = preferences(corpus(), "all", benign=True, rejected=False)
        made = training.sft(model(Path(place) / "start", architecture), rows, run)
        return {path.name: path.read_bytes() for path in Path(made.base).iterdir()}


def corpus(prompts: int = 6, languages: tuple[str, ...] = LANGUAGES) -> Corpus:
    """Return parallel preferences on made-up requests, half of them harmless; the pivot comes first."""
    rows = []
    for language in languages:
        for index in range(prompts):
            harmful = index % 2 == 0
            helpful, refusal = f"{language} yes {index}", f"{language} no"
            rows.append(
                Example(
                    id=f"p{index}",
                    cluster=f"p{index}",
                    language=language,
                    prompt=f"{language} {'bad' if harmful else 'good'} {index}",
                    harmful=harmful,
                    chosen=refusal if harmful else helpful,
                    rejected=helpful if harmful else refusal,
                )
            )
    return Corpus(pivot=languages[0], languages=languages, examples=tuple(rows))


def budget(**changes: int | float | str) -> Training:
    """Return the budget of a check, two steps of four rows, with some of its values changed."""
    return replace(
        Training(steps=2, batch_size=4, learning_rate=1e-3, warmup=0.0, schedule="constant"),
        **changes,  # type: ignore[arg-type]
    )


@dataclass(kw_only=True)
class Log:
    """A `core.Run` that keeps everything it is told.

    Attributes:
        curve: One mapping per logged step.
        read: (language, id, whether answers were read) of every row consumed.
        facts: What the method recorded.
    """

    folder: Path
    seed: int = 0
    training: Training = field(default_factory=budget)
    curve: list[dict[str, float]] = field(default_factory=list)
    read: set[tuple[str, str, bool]] = field(default_factory=set)
    facts: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shared.mkdir(parents=True, exist_ok=True)

    @property
    def scratch(self) -> Path:
        """Return a folder beside the result."""
        return self.folder.with_name(f"{self.folder.name}-scratch")

    @property
    def shared(self) -> Path:
        """Return the folder that all runs beside this one share."""
        return self.folder.with_name("shared")

    def log(self, step: int, total: int, **values: float) -> None:
        """Keep one step of the training curve."""
        self.curve.append({"step": step, "total": total, **values})

    def consume(self, rows: Iterable[Example], *, answers: bool) -> None:
        """Keep which rows were read."""
        self.read |= {(row.language, row.id, answers) for row in rows}

    def record(self, **facts: float | str) -> None:
        """Keep facts of the training."""
        self.facts |= facts
