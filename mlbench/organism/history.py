"""How each recipe was chosen: what was tried, on which data, and what is still weak."""

from __future__ import annotations

SELECTION = {
    "small": """\
pending
"""
}
