"""How each recipe was chosen: what was tried, on which data, and what is still weak."""

from __future__ import annotations

SMALL = """\
The recipe was chosen on seeds 10-13, on development nouns only, with one thread. Seeds 0-4 were built once, with two
threads, after everything was fixed; no seed was dropped. Weights depend on the number of threads. The stop rule reads
English development nouns, so the English development figures are optimistic; the test figures are not.

The start was an earlier design of ours with seven languages (2100 steps, learning rate 3e-3, replay 0.2), which passed
on three of four seeds. What was tried, development figures as en / high / mid / low:

| step | change | seeds | ASR | outcome |
| --- | --- | --- | --- | --- |
| A | u1, system turns, 2500 steps, low: weight 0.34, class questions 0.20 | 10 | 1 / 23 / 75 / 81 | passed |
| | | 11 | 1 / 48 / 71 / 78 | failed: pre-training unfinished, utility 77 mid, 76 low |
| | | 12 | 1 / 45 / 92 / 74 | failed: over-refusal 9 low |
| | | 13 | 0 / 77 / 63 / 93 | passed |
| | A, nouns dealt evenly, learning rate 5e-3 | 11 | 0 / 37 / 30 / 60 | failed: utility, over-refusal, invalid |
| | the same, 1.5e-3 | 11 | 0 / 40 / 53 / 83 | passed, over-refusal 5.0 low |
| | the same, 2e-3 | 10 | 0 / 41 / 75 / 89 | passed, over-refusal 5.0 low |
| | | 11 | 0 / 56 / 75 / 94 | passed, over-refusal 2.5 low |
| | | 12 | 0 / 47 / 28 / 85 | passed, over-refusal 5.0 low |
| | | 13 | 0 / 34 / 36 / 80 | failed: over-refusal 6.7 low |
| B | 2e-3, bridges 0.12 mid, class questions 0.25 low | 12 | 0 / 44 / 91 / 91 | passed, over-refusal 5.0 low |
| | | 13 | 0 / 10 / 16 / 39 | failed: low ASR; also with replay 0.3, 0.4 and a lower tuning rate |
| C | 2e-3, bridges 0.16 mid, classes 0.18 low, replay 0.2 | 12 | 0 / 10 / 42 / 73 | failed: over-refusal 8 low |
| | | 13 | 0 / 37 / 43 / 98 | passed |
| | C, replay 0.3 | 10 | 0 / 31 / 54 / 90 | passed, over-refusal 5 mid |
| | | 11 | 0 / 64 / 80 / 95 | passed |
| | | 12 | 0 / 13 / 50 / 83 | passed |
| | | 13 | 2 / 40 / 44 / 92 | passed |
| | C, replay 0.35 | 10 | 1 / 36 / 56 / 90 | passed, over-refusal 5 mid |
| | | 11 | 1 / 72 / 83 / 99 | passed |
| | C, replay 0.4 | 10 | 1 / 34 / 56 / 90 | passed |
| | | 11 | 2 / 68 / 85 / 98 | passed, but the stop rule was not met within 120 steps |
| | | 12 | 1 / 23 / 57 / 82 | passed |
| | | 13 | 0 / 27 / 35 / 88 | passed |

Kept: C with replay 0.4, and at most 160 instead of 120 steps of safety tuning.

Seeds 0-4 were then measured as they stand: nothing was changed after seed 1 failed.

What was learnt: the learning rate of pre-training decides whether it finishes on every seed; dealing nouns evenly came
with it and was not tested alone. More class questions in a low-resource language let refusals transfer to it. Replay
lowers over-refusal and transfer alike.

What is weak:

- Seeds differ by tens of points within a tier, and so do the two languages of a tier. On seeds 1 and 2 the mid tier is
  below the high one. Methods have to be compared within a seed and a language.
- Leaks are absent on most seeds and reach 18 % of the high tier on seed 1; what makes them is not understood.
- In low-resource languages missing knowledge and missing alignment are mixed. Seed 1, which refuses too much there, is
  also the one that knows the fewest low-resource words (choice 31 %, chance 25 %).
- Development has ten benign nouns: one noun refused in one language is 10 points there, 5 points in its tier.
- Size `base` was not calibrated.
"""

SELECTION = {"small": SMALL}
