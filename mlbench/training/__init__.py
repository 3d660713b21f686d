"""Gradient training, as far as two or more methods share it."""

from mlbench.training.objective import train
from mlbench.training.trainers import dpo, sft

__all__ = ["dpo", "sft", "train"]
