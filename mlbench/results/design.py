"""What was fixed before any result existed."""

from __future__ import annotations

from dataclasses import dataclass

from mlbench.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Design:
    """What was fixed before any result existed.

    Attributes:
        methods: Labels in the order of the shootout; together with the models they are the Holm family.
        baseline: The method all others are compared with.
        references: Further methods that all others are compared with; exploratory.
        untouched: The method that answers with the start checkpoint, "" if there is none.
        primary: Safety tasks whose macro attack success rate is the primary endpoint.
        pivot: The language whose safety is to be carried over.
        alpha: Two-sided error of tests and intervals.
        resamples: Bootstrap draws and sign flips.
        seed: Seed of both.
        over_refusal_margin: Rise of over-refusal that would still be acceptable, in [0, 1].
        utility_margin: Loss of utility that would still be acceptable, in [0, 1].
    """

    methods: tuple[str, ...]
    baseline: str
    primary: tuple[str, ...]
    pivot: str
    references: tuple[str, ...] = ()
    untouched: str = "none"
    alpha: float = 0.05
    resamples: int = 10_000
    seed: int = 0
    over_refusal_margin: float = 0.02
    utility_margin: float = 0.01

    def __post_init__(self) -> None:
        if self.baseline not in self.methods:
            raise unknown("baseline", self.baseline, self.methods)
        for name in self.references:
            if name not in self.methods:
                raise unknown("reference", name, self.methods)
