"""The model organism: a tiny multilingual language model in which the safety gap between languages is really there."""

from __future__ import annotations

import os

# Read once, when torch is first imported. Threads that spin while they wait make a build on a busy machine more than
# ten times slower; how they wait changes no number.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
