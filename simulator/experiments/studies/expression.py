"""Expressions in study files: `when: kv.l1 + kv.l2 <= 8 GiB and arm != 'gpu_only'`, `require: latency.ttft_s.p99 <= 2 s`.

The text is parsed by Python's parser and walked by hand over a short list of node types; nothing is ever executed.
Allowed: numbers (with units: `8 GiB`, `2 s`, `99 %`), quoted text, true, false, dotted names, lists, + - * /, comparisons
(also chained, `in`), and, or, not. A name without a value is an error with the nearest one.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from simulator.errors import did_you_mean
from simulator.experiments.studies.fields import Refused
from simulator.units import UNITS, parse

Value = float | str | bool | list[Any] | None

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.In: lambda item, group: item in group, ast.NotIn: lambda item, group: item not in group,
}  # fmt: skip
_WORDS: dict[str, Value] = {"true": True, "false": False, "inf": inf, "none": "none"}
_DIMENSION = {unit: dimension for dimension, units in UNITS.items() for unit in units}
_UNIT = "|".join(sorted((re.escape(unit) for unit in _DIMENSION), key=len, reverse=True))
_TOKEN = re.compile(rf"('[^']*'|\"[^\"]*\")|(?<![\w.])(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*(%|(?:{_UNIT})(?![\w/]))")
LONGEST = 1000  # characters


class Expression:
    """A checked expression; call it with what a name stands for."""

    def __init__(self, text: str):
        self.text = text
        if len(text) > LONGEST:
            raise Refused(f"longer than {LONGEST} characters")
        try:
            self._tree = ast.parse(_TOKEN.sub(_in_si, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            example = "kv.l1 <= 8 GiB and arm != 'gpu_only'"
            raise Refused(f"{text!r} is not an expression; write for example {example}") from None
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._names(self._tree)))

    def __call__(self, lookup: Callable[[str], Value]) -> Value:
        """The value; Refused where it has none."""
        try:
            value: Value = self._value(self._tree, lookup)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise Refused(f"{self.text!r} has no value: {error}") from None
        return value

    def comparison(self) -> tuple[Callable[[Callable[[str], Value]], Value], str, Callable[[Callable[[str], Value]], Value]]:
        """(left side, operator, right side) of a requirement such as `latency.ttft_s.p99 <= 2 s`."""
        tree = self._tree
        signs: dict[type[ast.AST], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in signs:
            raise Refused(f"{self.text!r} is not a requirement; write for example 'latency.ttft_s.p99 <= 2 s'")
        left, right = tree.left, tree.comparators[0]
        return (lambda look: self._value(left, look)), signs[type(tree.ops[0])], (lambda look: self._value(right, look))

    def _names(self, node: ast.AST) -> Iterable[str]:
        """Names in the tree; refuses every node that is not on the list."""
        name = _dotted(node)
        if name is not None:
            if name not in _WORDS:
                yield name
            return
        allowed = (ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.List, ast.Tuple)
        plain = isinstance(node, ast.Constant) and isinstance(node.value, int | float | str)
        operators = [getattr(node, "op", None), *getattr(node, "ops", [])]
        known = {type(None), ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, *_ARITHMETIC, *_COMPARE}
        if not plain and not (isinstance(node, allowed) and known.issuperset(map(type, operators))):
            raise Refused(f"{self.text!r}: only names, numbers, text, + - * /, comparisons, and, or, not are allowed")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self._names(child)

    def _value(self, node: ast.AST, lookup: Callable[[str], Value]) -> Any:
        name = _dotted(node)
        if name is not None:
            return _WORDS[name] if name in _WORDS else lookup(name)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(item, lookup) for item in node.elts]
        if isinstance(node, ast.BoolOp):
            stop = isinstance(node.op, ast.Or)
            return next((stop for item in node.values if bool(self._value(item, lookup)) is stop), not stop)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, lookup)
            return not value if isinstance(node.op, ast.Not) else -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            sides = self._value(node.left, lookup), self._value(node.right, lookup)
            if not all(isinstance(side, int | float) for side in sides):
                raise TypeError("arithmetic with something that is no number")
            return _ARITHMETIC[type(node.op)](*sides)
        assert isinstance(node, ast.Compare)
        left = self._value(node.left, lookup)
        for sign, other in zip(node.ops, node.comparators):
            right = self._value(other, lookup)
            if not _COMPARE[type(sign)](left, right):
                return False
            left = right
        return True


def unknown_name(name: str, known: Iterable[str]) -> Refused:
    names = list(known)
    return Refused(f"'{name}' is not known here", did_you_mean(name, names) or f"names: {', '.join(names[:12])}")


def _dotted(node: ast.AST) -> str | None:
    """`a.b.c` as one name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (above := _dotted(node.value)) is not None:
        return f"{above}.{node.attr}"
    return None


def _in_si(match: re.Match[str]) -> str:
    """`8 GiB` as a number in SI units; quoted text stays."""
    quoted, number, unit = match.groups()
    if quoted:
        return quoted
    return repr(float(number) / 100 if unit == "%" else parse(f"{number} {unit}", _DIMENSION[unit]))
