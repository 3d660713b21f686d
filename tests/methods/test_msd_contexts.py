"""What MSD's teacher sees, as text, and instructions that are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlbench_methods.msd import MSD, fill
from pydantic import ValidationError

from mlbench import models
from mlbench.core import Checkpoint, Corpus, Example

from .msd_runs import SHORT, log


def test_braces_in_a_prompt_stay_what_they_are() -> None:
    prompt = "print({language}) {0} {} {{prompt}}"
    assert fill("{prompt} in {language}", prompt=prompt, language="Swahili {prompt}") == (
        "print({language}) {0} {} {{prompt}} in Swahili {prompt}"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer_instruction": "Answer in {language}."}, "has no {prompt}"),
        ({"cot_instruction": "{prompt} in {tongue}"}, "unknown placeholder {tongue}"),
        ({"follow_up_instruction": "now {}"}, "unknown placeholder {}"),
        ({"context": "type_conditional"}, "cot: none"),
        ({"top_k": 1}, "greater than or equal to 2"),
        ({"polycy": "on"}, "polycy"),
    ],
)
def test_wrong_fields_are_refused_when_they_are_made(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MSD(**fields)


def contexts(method: MSD, start: Checkpoint, folder: Path, corpus: Corpus) -> list[str]:
    """Return what the teacher sees of the pivot's and of another language's row, as text."""
    loaded = models.load(start, device="cpu")
    chats = method.contexts(loaded, corpus.examples, corpus, log(folder))
    return loaded.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)


PAIR = Corpus(
    pivot="en",
    languages=("en", "xa"),
    names={"xa": "Xanish"},
    examples=tuple(
        Example(id="p", cluster="p", language=language, prompt=text, harmful=True)
        for language, text in (("en", "ask {language}"), ("xa", "{prompt} aks"))
    ),
)


def test_the_teacher_sees_the_pivots_prompt_and_the_instruction_and_the_pivots_own_row_is_bare(
    start: Checkpoint, tmp_path: Path
) -> None:
    method = MSD(cot="none", answer_instruction="{prompt} in {language}")
    bare = "<bos><|user|>ask {language}<eos><|assistant|>"
    assert contexts(method, start, tmp_path, PAIR) == [
        bare,
        "<bos><|user|>ask {language} in Xanish<eos><|assistant|>",
    ]
    literal = MSD(cot_instruction="{prompt}! Think, then speak {language}.")
    assert contexts(literal, start, tmp_path, PAIR) == [
        bare,
        "<bos><|user|>ask {language}! Think, then speak Xanish.<eos><|assistant|>",
    ]
    nameless = replace(PAIR, names={})
    assert contexts(method, start, tmp_path, nameless)[1] == "<bos><|user|>ask {language} in xa<eos><|assistant|>"


def test_prefilled_reasoning_is_what_the_start_model_writes_greedily(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(
        cot="prefilled", analysis_instruction="judge {prompt}", follow_up_instruction="now in {language}", **SHORT
    )
    pivot, other = contexts(method, start, tmp_path, PAIR)
    loaded = models.load(start, device="cpu")
    asked = "<bos><|user|>judge ask {language}<eos><|assistant|>"
    ids = torch.tensor([loaded.tokenizer(asked, add_special_tokens=False)["input_ids"]])
    written = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    reasoning = loaded.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert pivot == "<bos><|user|>ask {language}<eos><|assistant|>"
    assert other == f"{asked}{reasoning}<eos><|user|>now in Xanish<eos><|assistant|>"


def test_the_context_of_opsa_depends_on_whether_the_prompt_is_harmful(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(
        context="type_conditional", cot="none", harmful_instruction="bad: {prompt}", benign_instruction="good: {prompt}"
    )
    rows = tuple(replace(row, harmful=row.language == "xa") for row in PAIR.examples)
    assert contexts(method, start, tmp_path, replace(PAIR, examples=rows)) == [
        "<bos><|user|>good: ask {language}<eos><|assistant|>",
        "<bos><|user|>bad: {prompt} aks<eos><|assistant|>",
    ]
