"""Engines say what their models say: sequence-to-sequence models and chat models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mlbench import models, mt
from mlbench.core import Checkpoint, Prompt
from mlbench.errors import ConfigError, DataError
from mlbench.mt import Said


def entry(kind: str, model: Path | str, **more: Any) -> mt.EngineEntry:
    return mt.EngineEntry(kind=kind, model=str(model), max_new_tokens=6, **more)


TEXTS = ["how do i cook rice", "why?", "where is the sea and what lies under it"]


def test_a_sequence_to_sequence_model_is_forced_into_the_target_language(nllb: Path) -> None:
    said = mt.engine(entry("nllb", nllb)).translate(TEXTS, "en", "sw")
    words = AutoTokenizer.from_pretrained(nllb, src_lang="eng_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(nllb).eval()
    for text, found in zip(TEXTS, said, strict=True):
        source = words(text, return_tensors="pt")["input_ids"]
        assert words.convert_ids_to_tokens(source[0].tolist())[:1] == ["eng_Latn"]
        # One token after the other: end of sequence, the language, then whatever is likeliest.
        written = [2, words.convert_tokens_to_ids("swh_Latn")]
        while len(written) < 7 and 2 not in written[1:]:
            with torch.no_grad():
                logits = model(input_ids=source, decoder_input_ids=torch.tensor([written])).logits
            written.append(int(logits[0, -1].argmax()))
        assert found == Said(words.decode(written, skip_special_tokens=True).strip(), 2 not in written[1:])
    assert mt.engine(entry("nllb", nllb)).translate(TEXTS, "en", "bn") != said


def test_translations_do_not_depend_on_the_batch_size(nllb: Path, tiny_model: Path) -> None:
    for kind, folder in (("nllb", nllb), ("causal", tiny_model)):
        alone = mt.engine(entry(kind, folder, batch_size=1)).translate(TEXTS, "en", "sw")
        assert mt.engine(entry(kind, folder, batch_size=8)).translate(TEXTS, "en", "sw") == alone


@pytest.mark.parametrize("kind", ["nllb", "causal"])
def test_a_text_that_is_too_long_is_not_cut(kind: str, nllb: Path, tiny_model: Path) -> None:
    engine = mt.engine(entry(kind, nllb if kind == "nllb" else tiny_model))
    whole = engine.translate(["why?"], "en", "sw")
    assert engine.translate(["x" * 600, "why?"], "en", "sw") == [Said("", True), *whole]


def test_a_language_without_a_code_or_a_token_is_refused(nllb: Path) -> None:
    with pytest.raises(ConfigError, match=r"no code of an NLLB model is known for 'tlh'"):
        mt.engine(entry("nllb", nllb)).check(["en", "tlh"])
    mt.engine(entry("nllb", nllb, names={"tlh": "swh_Latn"})).check(["en", "tlh"])
    with pytest.raises(ConfigError, match="no token for the language 'tha_Thai'"):
        mt.engine(entry("nllb", nllb)).check(["en", "th"])
    with pytest.raises(DataError, match="unknown language 'xx-none'"):
        mt.engine(entry("causal", nllb)).check(["xx-none"])


def test_a_chat_model_is_asked_in_the_documented_words(tiny_model: Path) -> None:
    assert mt.question("Why?", "en", "sw") == (
        "Translate the following segment into Swahili, without additional explanation.\n\nWhy?"
    )
    assert mt.question("Why?", "en", "zh") == "把下面的文本翻译成中文，不要额外解释。\n\nWhy?"
    assert mt.question("为什么", "zh", "en") == "把下面的文本翻译成英语，不要额外解释。\n\n为什么"
    assert "into Sindarin," in mt.question("Why?", "en", "sjn", {"sjn": "Sindarin"})
    loaded = models.load(Checkpoint(base=str(tiny_model)), device="cpu")
    asked = Prompt(id="p", cluster="p", language="", text=mt.question("Why?", "en", "sw"))
    (answer,) = models.generate(loaded, [asked], max_new_tokens=6)
    assert mt.engine(entry("causal", tiny_model)).translate(["Why?"], "en", "sw") == [
        Said(answer.text, answer.truncated)
    ]


def test_an_engine_names_everything_its_translations_depend_on(nllb: Path) -> None:
    about = mt.engine(entry("nllb", nllb, beams=3)).about()
    assert len(str(about["revision"])) >= 16
    assert (about["beams"], about["max_new_tokens"], about["dtype"]) == (3, 6, "float32")
