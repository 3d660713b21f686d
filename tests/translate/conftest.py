"""A random model that translates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration
from transformers.models.nllb.tokenization_nllb import NllbTokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random model of NLLB's architecture with a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("nllb")
    letters = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz0123456789?."]
    codes = ["eng_Latn", "swh_Latn", "ben_Beng", "ita_Latn"]
    words = NllbTokenizer(
        vocab={letter: at for at, letter in enumerate(letters)}, merges=[], extra_special_tokens=codes
    )
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = M2M100Config(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
        init_std=0.5, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder
