"""Quantities with units: what people write at the edges, SI floats inside.

`parse("10 us", "time")` is 1e-05; `format_quantity(1e-05, "time")` is "10 us" and parses back to the identical float.
The product of number and unit is exact before its one rounding, so "10 us" equals the literal 10e-6.
Decimal prefixes are powers of 1000 and binary ones powers of 1024: 1 GB is not 1 GiB. A unit is part of the value: a
bare number is an error in every dimension but "number". A year has 365 days (8,760 h), as usual in cost models.
Base units: s, B, B/s, FLOP/s, W, USD, USD/B, USD/J, 1/s, tokens; rents stay in USD per hour.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from math import inf, isfinite, isinf, isnan

_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZES = {f"{prefix}B": Fraction(factor) for prefix, factor in (_DECIMAL | _BINARY).items()}
_TIMES = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}
_HOUR = Fraction(3600)
_LONG_TIMES = {"min": Fraction(60), "h": _HOUR, "year": 8760 * _HOUR, "years": 8760 * _HOUR}
_PER = {"s": Fraction(1), "min": Fraction(1, 60), "h": 1 / _HOUR}
_JOULES = {"J": 1, "kWh": 3_600_000, "MWh": 3_600_000_000}

# dimension -> unit -> factor to the base unit; the first unit of each is the base unit
UNITS: dict[str, dict[str, Fraction]] = {
    "time": _TIMES | _LONG_TIMES,
    "size": _SIZES,
    "rate": {f"{unit}/s": factor for unit, factor in _SIZES.items()},
    "flops": {f"{prefix}FLOP/s": Fraction(f) for prefix, f in (_DECIMAL | {"P": 10**15}).items() if prefix != "K"},
    "power": {"W": Fraction(1), "mW": Fraction(1, 1000), "kW": Fraction(1000), "MW": Fraction(10**6)},
    "money": {"USD": Fraction(1)},
    "money_rate": {"USD/h": Fraction(1)},
    "money_per_size": {f"USD/{unit}": 1 / factor for unit, factor in _SIZES.items()},
    "power_per_size": {f"W/{unit}": 1 / factor for unit, factor in _SIZES.items()},
    "money_per_energy": {f"USD/{unit}": Fraction(1, joules) for unit, joules in _JOULES.items()},
    "request_rate": {f"{who}/{unit}": f for who in ("", "req", "requests") for unit, f in _PER.items()},
    "tokens": {"tokens": Fraction(1), "token": Fraction(1)},
    "number": {},
}

_EXAMPLES = {
    "time": ("10", "us"), "size": ("12", "GiB"), "rate": ("25", "GB/s"), "flops": ("312", "TFLOP/s"),
    "power": ("400", "W"), "money": ("100", "USD"), "money_rate": ("2", "USD/h"), "money_per_size": ("8", "USD/GB"),
    "power_per_size": ("0.3", "W/GB"),
    "money_per_energy": ("0.1", "USD/kWh"), "request_rate": ("4", "/s"), "tokens": ("512", "tokens"),
    "number": ("0.9", ""),
}  # fmt: skip
_NAMES = {
    "time": "a time", "size": "a size", "rate": "a rate", "flops": "a compute rate", "power": "a power",
    "money": "an amount of money", "money_rate": "a rent", "money_per_size": "a price per size",
    "power_per_size": "a power per size",
    "money_per_energy": "a price of energy", "request_rate": "a request rate", "tokens": "a number of tokens",
    "number": "a plain number",
}  # fmt: skip
_DIMENSION_OF = {unit: dimension for dimension, units in UNITS.items() for unit in units}
_MAY_BE_INFINITE = frozenset({"time", "size", "rate", "flops", "number"})
_QUANTITY = re.compile(r"([+-]?(?:inf|nan|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))\s*([A-Za-zµμ/].*)?", re.ASCII)


def parse(text: str, dimension: str) -> float:
    """The value of `text` in base units of `dimension` (a key of `UNITS`); ValueError says what to write instead."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {_NAMES[dimension]}; write for example '{_example(dimension)}'")
    number, unit = match.group(1), match.group(2) or ""
    value = float(number)
    if isnan(value):
        raise ValueError(f"{text!r} is not {_NAMES[dimension]}; write for example '{_example(dimension)}'")
    factor = _factor(text, number, unit, dimension)
    if dimension != "number" and (value < 0 or number.startswith("-")):
        raise ValueError(f"{text!r} is negative; {_NAMES[dimension]} must be 0 or more")
    if isinf(value):
        if number.lstrip("+-") != "inf":
            raise ValueError(f"{text!r} is too large")
        if dimension not in _MAY_BE_INFINITE:
            raise ValueError(f"{_NAMES[dimension]} cannot be infinite; write for example '{_example(dimension)}'")
        return value
    if value == 0.0:  # also spares the exact arithmetic an exponent such as e-999999999
        return 0.0
    try:
        exact = float(Fraction(number) * factor)
    except OverflowError:
        raise ValueError(f"{text!r} is too large") from None
    if dimension == "tokens" and exact != int(exact):
        raise ValueError(f"{text!r} is not a whole number of tokens")
    return exact


@lru_cache(maxsize=4096)  # a sweep writes the same values for every point
def format_quantity(value: float, dimension: str) -> str:
    """The shortest text that parses to exactly `value`: at most nine digits and a unit, else the base unit in full."""
    base = next(iter(UNITS[dimension]), "")
    if not isfinite(value) or not value or dimension == "number":
        return f"{_plain(value)} {base}".strip() if value != inf else "inf"
    if dimension == "tokens":
        return "1 token" if value == 1 else f"{_plain(value)} tokens"
    forms = [form for unit, factor in UNITS[dimension].items() if (form := _short(value, unit, factor, dimension))]
    return min(forms, default=(0, 0, f"{_plain(value)} {base}"))[-1]


def _short(value: float, unit: str, factor: Fraction, dimension: str) -> tuple[int, int, str] | None:
    """(length, 0 if the number is within 1..999, text) of `value` in this unit, or None where nine digits do not do."""
    exact = Fraction(value) / factor
    if not Fraction(1, 1000) <= exact < 10**6 or unit == ("years" if exact == 1 else "year"):
        return None
    scaled = float(exact)
    for digits in range(1, 10):
        number = f"{scaled:.{digits}g}"
        text = f"{number} {unit}"
        if "e" not in number and parse(text, dimension) == value:
            return len(text), 0 if 1 <= scaled < 1000 else 1, text
    return None


def _factor(text: str, number: str, unit: str, dimension: str) -> Fraction:
    """The factor of `unit` if it belongs to `dimension`."""
    units = UNITS[dimension]
    if unit in units:
        return units[unit]
    if not unit:
        if dimension == "number" or (number.lstrip("+-") == "inf" and dimension in _MAY_BE_INFINITE):
            return Fraction(1)
        raise ValueError(f"{text.strip()} has no unit; write for example '{_example(dimension, number)}'")
    if unit in _DIMENSION_OF:
        found, per_second = _DIMENSION_OF[unit], f"{unit}/s"
        example = f"{number} {per_second}" if per_second in units else _example(dimension)
        raise ValueError(f"{text.strip()!r} is {_NAMES[found]}, expected {_NAMES[dimension]} such as '{example}'")
    raise ValueError(f"unknown unit {unit!r}; {_nearest(unit, dimension)}")


def _example(dimension: str, number: str = "") -> str:
    default, unit = _EXAMPLES[dimension]
    return f"{default if number in ('', 'inf') else number} {unit}".strip()


def _nearest(unit: str, dimension: str) -> str:
    """`did you mean 'GB/s'?`, without regard to case, first among units of the dimension that is expected."""
    typed = unit.casefold().replace("μ", "u")  # casefold turns the micro sign into this Greek letter
    for units in (UNITS[dimension], _DIMENSION_OF):
        folded = {candidate.casefold(): candidate for candidate in reversed(list(units))}
        near = get_close_matches(typed, list(folded), n=1, cutoff=0.6)
        if near:
            return f"did you mean '{folded[near[0]]}'?"
    return f"write for example '{_example(dimension)}'"


def _plain(value: float) -> str:
    """repr without a trailing .0."""
    return repr(value).removesuffix(".0")
