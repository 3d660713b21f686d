"""The model organism: a tiny multilingual language model in which the safety gap between languages is really there."""

from __future__ import annotations

import os

# Read once, when torch is first imported. By default idle OpenMP threads spin, which makes a build on a busy machine
# twenty times slower; threads that sleep at once make it twice as slow on an idle one. How they wait changes no number.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
