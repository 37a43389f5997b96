"""The kinds of value a scenario may hold, for use in `Annotated[...]` with pydantic.

`Quantity("time")` is text with a unit, read by `simulator.units`; `Number`, `Count`, `Text`, `Flag` are plain scalars
and do not convert into each other: `"5"` is no number and `true` is no count. Every refusal says what was found and
what to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from simulator import units

_EXPECTED = {
    "time": ("a time", "10 us"), "size": ("a size", "12 GiB"), "rate": ("a rate", "25 GB/s"),
    "flops": ("a compute rate", "312 TFLOP/s"), "power": ("a power", "400 W"),
    "money": ("an amount of money", "100 USD"), "money_rate": ("a rent", "2 USD/h"),
    "money_per_size": ("a price per size", "8 USD/GB"), "power_per_size": ("a power per size", "0.3 W/GB"),
    "money_per_energy": ("a price of energy", "0.1 USD/kWh"), "request_rate": ("a request rate", "4 /s"),
    "tokens": ("a number of tokens", "512 tokens"),
}  # fmt: skip


def refuse(message: str, hint: str = "", at: tuple[str, ...] = ()) -> PydanticCustomError:
    """An error for pydantic to collect; `at` leads from the validated section to the offending key."""
    return PydanticCustomError("refused", "{message}", {"message": message, "hint": hint, "at": at})


def refuse_all(problems: list[tuple[tuple[str, ...], str]]) -> PydanticCustomError:
    """Several (at, message) of one section in one error."""
    return PydanticCustomError("refused", "{message}", {"message": problems[0][1], "all": problems})


def shown(value: Any) -> str:
    """A value as it is quoted in a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str) else plain(value)
    return text if len(text) <= 60 else text[:57] + "..."


def plain(value: float) -> str:
    """A number as people write it: no trailing `.0`."""
    return repr(value).removesuffix(".0")


class _Kind:
    """A value read by one function, with the JSON schema that editors see."""

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def json_schema(self) -> JsonSchemaValue:
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return self.json_schema()


@dataclass(frozen=True)
class Quantity(_Kind):
    """A number with a unit of `dimension`, in base units; 0 is refused with `above_zero`, `inf` with `finite`."""

    dimension: str
    above_zero: bool = False
    finite: bool = False
    why: str = ""  # said instead of "must be above 0"

    def read(self, value: Any) -> float:
        what, example = _EXPECTED[self.dimension]
        if isinstance(value, dict | list | bool) or value is None:
            raise refuse(f"expected {what} such as '{example}', found {shown(value)}")
        try:
            number = units.parse(value if isinstance(value, str) else plain(value), self.dimension)
        except ValueError as error:
            message, _, hint = str(error).partition("; did you mean")
            raise refuse(message, f"did you mean{hint}" if hint else "") from None
        if self.above_zero and number <= 0:
            raise refuse(f"{shown(value)}: {self.why}" if self.why else f"{shown(value)} must be above 0")
        if self.finite and number == inf:
            raise refuse(f"{shown(value)} must be finite; write for example '{example}'")
        return number

    def json_schema(self) -> JsonSchemaValue:
        what, example = _EXPECTED[self.dimension]
        description = f"{what} with its unit: {', '.join(list(units.UNITS[self.dimension])[:8])}"
        return {"type": "string", "description": description, "examples": [example]}


@dataclass(frozen=True)
class RequestRate(Quantity):
    """Requests per second; `inf` (all at once) is a rate, too."""

    dimension: str = "request_rate"
    above_zero: bool = True

    def read(self, value: Any) -> float:
        return inf if value in (inf, "inf") else super().read(value)


@dataclass(frozen=True)
class Tokens(_Kind):
    """A whole number of tokens, written `512 tokens`."""

    least: int = 1

    def read(self, value: Any) -> int:
        number = Quantity("tokens").read(value)
        if number < self.least:
            raise refuse(f"{shown(value)} must be at least {self.least} token{'s' if self.least != 1 else ''}")
        return int(number)

    def json_schema(self) -> JsonSchemaValue:
        return {"type": "string", "description": "a number of tokens with its unit", "examples": ["512 tokens"]}


@dataclass(frozen=True)
class Number(_Kind):
    """A plain number between two bounds."""

    least: float = -inf
    most: float = inf
    above: float = -inf  # an open lower bound

    def read(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(f"expected a number{self._range()}, found {shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            raise refuse(f"{shown(value)} is too large") from None
        if isnan(number):
            raise refuse(f"expected a number{self._range()}, found nan")
        if not self.least <= number <= self.most or number <= self.above or abs(number) == inf:
            raise refuse(f"{shown(value)} is out of range: expected a number{self._range()}")
        return number

    def _range(self) -> str:
        lower = f" above {plain(self.above)}" if self.above > -inf else ""
        if self.least > -inf:
            lower = f" of at least {plain(self.least)}"
        if self.most == inf:
            return lower
        joint = " and" if lower else ""
        return f"{lower}{joint} at most {plain(self.most)}"

    def json_schema(self) -> JsonSchemaValue:
        bounds = {"minimum": self.least, "maximum": self.most, "exclusiveMinimum": self.above}
        return {"type": "number"} | {key: bound for key, bound in bounds.items() if abs(bound) < inf}


@dataclass(frozen=True)
class Count(_Kind):
    """A whole number of at least `least`, or the one `word` that is accepted instead."""

    least: int = 0
    word: str = ""

    def read(self, value: Any) -> int | str:
        if self.word and value == self.word:
            return self.word
        orelse = f" (or '{self.word}')" if self.word else ""
        whole = isinstance(value, int) or (isinstance(value, float) and abs(value) < 1e15 and value == int(value))
        if isinstance(value, bool) or not whole:
            raise refuse(f"expected a whole number{orelse}, found {shown(value)}")
        number = int(value)
        if not self.least <= number <= 10**15:
            raise refuse(f"{shown(value)} is out of range: expected a whole number of at least {self.least}{orelse}")
        return number

    def json_schema(self) -> JsonSchemaValue:
        number: JsonSchemaValue = {"type": "integer", "minimum": self.least}
        return {"anyOf": [number, {"const": self.word}]} if self.word else number


@dataclass(frozen=True)
class Text(_Kind):
    """Text that is not blank."""

    examples: tuple[str, ...] = ()

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            quote = f"; put it in quotes: '{plain(value)}'" if type(value) in (int, float) else ""
            raise refuse(f"expected text, found {shown(value)}{quote}")
        if not value.strip() or not value.isprintable():
            raise refuse(f"expected printable text, found {shown(value)}")
        return value

    def json_schema(self) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1} | ({"examples": list(self.examples)} if self.examples else {})


@dataclass(frozen=True)
class Flag(_Kind):
    """`true` or `false`."""

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise refuse(f"expected true or false, found {shown(value)}")
        return value

    def json_schema(self) -> JsonSchemaValue:
        return {"type": "boolean"}
