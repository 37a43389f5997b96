"""`when` and `require`: what is allowed, what it means, and that nothing is ever executed."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from simulator.experiments.studies.expression import Expression
from simulator.experiments.studies.fields import Refused

VALUES: dict[str, Any] = {"kv.l1": 2.0**30, "kv.l2": 2.0**29, "arm": "pool", "n": 4, "latency.ttft_s.p99": 1.5, "x": inf}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("kv.l1 <= 1 GiB", True),
        ("kv.l1 + kv.l2 < 1.5GiB", False),
        ("kv.l1 / kv.l2 == 2", True),
        ("arm == 'pool' and n in [2, 4]", True),
        ('arm != "pool" or not n > 3', False),
        ("1 s < latency.ttft_s.p99 <= 1500 ms", True),
        ("n >= 50 %", True),
        ("-n * 2 - 1", -9),
        ("x == inf", True),
        ("arm == '8 GiB'", False),
        ("n > 5 /s", False),
    ],
)
def test_value(text: str, value: Any):
    """Would catch: a unit ignored or read inside quotes, chained comparisons taken pairwise wrong, `and` as `or`."""
    assert Expression(text)(VALUES.__getitem__) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "open('/etc/passwd')", "[n for n in (1, 2)]", "lambda: 1", "n ** 9 ** 9 ** 9",
        "kv['l1']", "(1).real.__class__", "f'{n}'", "n if n else 1", "n := 3", "n <", "", "n; n", "'a' 'b'.join",
        "(" * 500, "n + " * 400 + "n",
    ],
)  # fmt: skip
def test_refused(text: str):
    """Would catch: calls, subscripts, powers or comprehensions that a study file could run."""
    with pytest.raises(Refused):
        Expression(text)(VALUES.__getitem__)


def test_no_value():
    """Would catch: text compared with a number, or a division by zero, that ends in a traceback."""
    for text in ("arm < 3", "n / 0 > 1", "arm + 1 > 0"):
        with pytest.raises(Refused, match="has no value"):
            Expression(text)(VALUES.__getitem__)


def test_names():
    """Would catch: words of the grammar, or parts of a dotted name, reported as names."""
    assert Expression("kv.l1 <= 8 GiB and arm != 'kv.l2' and true").names == ("kv.l1", "arm")


def test_requirement_has_two_sides():
    """Would catch: a requirement without a limit, whose margin would mean nothing."""
    left, sign, right = Expression("latency.ttft_s.p99 <= 2 s").comparison()
    assert (left(VALUES.__getitem__), sign, right(VALUES.__getitem__)) == (1.5, "<=", 2.0)
    for text in ("latency.ttft_s.p99", "1 < n < 2", "n == 3", "n > 1 and n < 3"):
        with pytest.raises(Refused, match="not a requirement"):
            Expression(text).comparison()
