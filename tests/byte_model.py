"""A small byte-level Qwen2 model, trained for about a minute on benign instructions: bad answers, but real text.

    python tests/byte_model.py FOLDER_OF_DATA OUTPUT_FOLDER [STEPS]

The data folder holds `polyrefuse/harmless_train_translated_*.json`, `polyrefuse/harmless_test_*` and `mgsm/mgsm_*.tsv`.
Instructions are answered with their own translation or with the answer of the problem, so that the model learns to
write in several scripts and to end its turn.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
WIDTH = 384


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast


def pairs(data: Path) -> list[tuple[str, str]]:
    """Return (instruction, answer) pairs made of the benign files."""
    found = []
    for path in sorted(data.glob("polyrefuse/harmless_test_translated_*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        found += [
            (row["instruction"], row["instruction_translated"]) for row in rows if "instruction_translated" in row
        ]
        found += [
            (row["instruction_translated"], row["instruction"]) for row in rows if "instruction_translated" in row
        ]
    for path in sorted(data.glob("mgsm/mgsm_*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [(question, answer) for question, _, answer in (line.rpartition("\t") for line in lines)]
    return found


def train(data: Path, folder: Path, *, steps: int = 250, seed: int = 0) -> None:
    """Train and save the model as an ordinary Hugging Face folder."""
    torch.manual_seed(seed)
    fast = tokenizer()
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
        pad_token_id=fast.pad_token_id, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    rows = [_row(fast, *pair) for pair in pairs(data)]
    rows = [row for row in rows if len(row) <= WIDTH]
    random.Random(seed).shuffle(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        batch = [rows[(step * 16 + at) % len(rows)] for at in range(16)]
        width = max(map(len, batch))
        ids = torch.tensor([row + [fast.pad_token_id] * (width - len(row)) for row in batch])
        labels = ids.masked_fill(ids == fast.pad_token_id, -100)
        loss = model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.2f}", file=sys.stderr)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def _row(fast: PreTrainedTokenizerFast, question: str, answer: str) -> list[int]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text = fast.apply_chat_template(turns, tokenize=False)
    return list(fast(text, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    torch.set_num_threads(2)
    train(Path(sys.argv[1]), Path(sys.argv[2]), steps=int(sys.argv[3]) if len(sys.argv) > 3 else 250)
