"""The weights of MSD's tokens, against numbers worked out by hand."""

import math

import pytest
import torch
from mlbench_methods.msd import MSD, disagreement, early_window, entropy_share

# Three tokens. Teacher: certain; torn between two; indifferent. Student: .5, .3, .2 each time.
TEACHER = torch.tensor([[1.0, 1e-9, 1e-9], [0.5, 0.5, 1e-9], [1 / 3, 1 / 3, 1 / 3]]).log()
STUDENT = torch.tensor([[0.5, 0.3, 0.2]] * 3).log()
REALISED = [[1], [2, 0]]


def weigh(**fields: object) -> torch.Tensor:
    return MSD(**fields).weigh(STUDENT, TEACHER, REALISED)


def test_weights_are_those_worked_out_by_hand() -> None:
    half = math.log(2) / math.log(3)  # the entropy share of the torn teacher, K being cut to three tokens
    confidence = torch.tensor([1.0, 1 - half, 0.0])
    # 1 - p_S at tokens 1, 2, 0
    realised = torch.tensor([0.7, 0.8, 0.5])
    torch.testing.assert_close(weigh(weighting="teacher"), confidence, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(weighting="teacher", teacher_term="entropy"), 1 - confidence, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(weighting="student"), realised, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(), confidence * realised, atol=1e-6, rtol=0)
    assert weigh(weighting="none").tolist() == [1, 1, 1]


def test_the_teachers_own_token_is_what_the_student_is_asked_about() -> None:
    teacher = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).log()
    found = disagreement(STUDENT[:2], teacher, torch.tensor([1, 1]), "teacher_argmax")
    torch.testing.assert_close(found, torch.tensor([0.8, 0.5]))  # 1 - .2 at token 2, 1 - .5 at token 0


def test_only_the_top_tokens_count_and_they_are_renormalised() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    # of the top two: 2/3 and 1/3
    expected = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(2)
    assert entropy_share(teacher, 2).item() == pytest.approx(expected, rel=1e-5)


def test_the_early_window_is_full_then_falls_to_the_floor_at_the_end() -> None:
    found = early_window(6, window=2, floor=0.2, decay="linear")
    assert found == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])
    assert early_window(2, window=32, floor=0.1, decay="linear") == [1, 1]
    assert early_window(4, window=2, floor=0.1, decay="step") == [1, 1, 0.1, 0.1]
    # Each answer has a window of its own.
    both = MSD(weighting="early_window", window=1, window_floor=0.5).weigh(STUDENT, TEACHER, REALISED)
    assert both.tolist() == [1, 1, 0.5]
