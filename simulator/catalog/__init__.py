"""The catalogue: GPUs, models, links, boards, prices, KV systems. Data with its sources, and one way to read it.

`README.md` in this folder says how values that are not in a datasheet were derived.
"""

from simulator.catalog.fields import FIELDS
from simulator.catalog.loader import Entry, UnknownName, at_degree, kinds, load, names

__all__ = ["FIELDS", "Entry", "UnknownName", "at_degree", "kinds", "load", "names"]
