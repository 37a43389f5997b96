"""Units: what is written at the edges is what is computed inside, exactly."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import UNITS, format_quantity, parse

KNOWN = [
    ("10 us", "time", 10e-6),
    ("300ns", "time", 300e-9),
    ("0 ns", "time", 0.0),
    ("2 min", "time", 120.0),
    ("1 year", "time", 8760 * 3600.0),
    ("4 years", "time", 4 * 8760 * 3600.0),
    ("12 GiB", "size", 12 * 2.0**30),
    ("12 GB", "size", 12e9),
    ("2039 GB/s", "rate", 2039e9),
    ("1.6 TB/s", "rate", 1.6e12),
    ("2 GiB/s", "rate", 2.0**31),
    ("inf", "rate", inf),
    ("inf GB/s", "rate", inf),
    ("inf", "time", inf),
    ("312 TFLOP/s", "flops", 312e12),
    ("1 PFLOP/s", "flops", 1e15),
    ("0.4 kW", "power", 400.0),
    ("8000 USD", "money", 8000.0),
    ("2.8 USD/h", "money_rate", 2.8),
    ("32 USD/GB", "money_per_size", 32e-9),
    ("32 USD/GiB", "money_per_size", 32 / 2**30),
    ("0.36 USD/kWh", "money_per_energy", 1e-7),
    ("4 /s", "request_rate", 4.0),
    ("4/s", "request_rate", 4.0),
    ("90 req/min", "request_rate", 1.5),
    ("512 tokens", "tokens", 512.0),
    ("1 token", "tokens", 1.0),
    ("0.947", "number", 0.947),
    ("1e3 s", "time", 1000.0),
]

WRONG = [
    ("10", "time", "10 has no unit; write for example '10 us'"),
    ("0", "time", "0 has no unit"),
    ("512", "tokens", "512 has no unit; write for example '512 tokens'"),
    ("25 GB", "rate", "'25 GB' is a size, expected a rate such as '25 GB/s'"),
    ("2 tokens", "time", "is a number of tokens, expected a time such as '10 us'"),
    ("5 USD", "number", "is an amount of money, expected a plain number"),
    ("25 gbps", "rate", "unknown unit 'gbps'; did you mean 'GB/s'?"),
    ("12 gib", "size", "did you mean 'GiB'?"),
    ("10 µs", "time", "did you mean 'us'?"),
    ("3 parsec", "time", "unknown unit 'parsec'; write for example '10 us'"),
    ("-1 s", "time", "is negative; a time must be 0 or more"),
    ("1.5 tokens", "tokens", "not a whole number of tokens"),
    ("inf", "tokens", "has no unit"),
    ("inf tokens", "tokens", "cannot be infinite"),
    ("nan s", "time", "is not a time"),
    ("", "size", "is not a size; write for example '12 GiB'"),
    ("fast", "rate", "is not a rate"),
    ("1_000 s", "time", "is not a time"),
    ("1e999 s", "time", "is too large"),
    ("1e308 TB", "size", "is too large"),
]


@pytest.mark.parametrize(("text", "dimension", "value"), KNOWN)
def test_known_quantities(text: str, dimension: str, value: float) -> None:
    """Exact equality with the literal. Catches a wrong factor, GB read as GiB, and a product rounded twice."""
    assert parse(text, dimension) == value


@pytest.mark.parametrize(("text", "dimension", "message"), WRONG)
def test_messages_say_what_to_write(text: str, dimension: str, message: str) -> None:
    """Catches bare numbers and wrong dimensions let through, and messages that do not help."""
    with pytest.raises(ValueError) as raised:
        parse(text, dimension)
    assert message in str(raised.value)


def test_huge_exponents_return_at_once() -> None:
    """Catches exact arithmetic on 10**999999999, which would hang on a typing error."""
    assert parse("1e-999999999 s", "time") == 0.0
    with pytest.raises(ValueError, match="too large"):
        parse("1e999999999 s", "time")


def test_every_unit_round_trips_at_one() -> None:
    """Catches a unit of one dimension shadowed by another and a formatter that picks a unit it cannot parse."""
    for dimension, units in UNITS.items():
        for unit in units:
            value = parse(f"1 {unit}", dimension)
            assert parse(format_quantity(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (1e-5, "time", "10 us"),
        (0.05, "time", "50 ms"),
        (0.0, "time", "0 s"),
        (8760 * 3600.0, "time", "1 year"),
        (5 * 8760 * 3600.0, "time", "5 years"),
        (12 * 2.0**30, "size", "12 GiB"),
        (17179869185.0, "size", "17179869185 B"),
        (26.28e9, "rate", "26.28 GB/s"),
        (inf, "rate", "inf"),
        (32e-9, "money_per_size", "32 USD/GB"),
        (4.0, "request_rate", "4 /s"),
        (1.0, "tokens", "1 token"),
        (512.0, "tokens", "512 tokens"),
        (0.872, "number", "0.872"),
        (1 / 3, "time", "0.3333333333333333 s"),
    ],
)
def test_human_forms(value: float, dimension: str, text: str) -> None:
    """Catches forms nobody would write (0.01 ms, 1 years, 12884901888 B)."""
    assert format_quantity(value, dimension) == text


@given(st.sampled_from(sorted(set(UNITS) - {"tokens"})), st.floats(min_value=0.0, allow_nan=False, allow_infinity=False))
def test_format_then_parse_is_the_identity(dimension: str, value: float) -> None:
    """Any finite float, bit for bit. Catches rounding in the short forms and overflow at the extremes."""
    assert parse(format_quantity(value, dimension), dimension) == value


@given(st.integers(min_value=0, max_value=2**53))
def test_token_counts_round_trip(tokens: int) -> None:
    """Catches token counts printed with a fraction or an exponent."""
    assert parse(format_quantity(float(tokens), "tokens"), "tokens") == tokens


@given(st.integers(min_value=1, max_value=99_999), st.sampled_from(["ns", "us", "ms", "s", "min", "h", "years"]))
def test_parse_is_exact(number: int, unit: str) -> None:
    """The value is the correctly rounded product. Catches `10 * 1e-6`, which is not 1e-05."""
    assert parse(f"{number} {unit}", "time") == float(number * UNITS["time"][unit])
