"""pydantic's errors as problems: where it was written, what was found, what was expected, the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from simulator.errors import Problem, did_you_mean
from simulator.scenario.parts import SINGULAR, Part
from simulator.scenario.quantities import shown
from simulator.scenario.source import Source, Where


def problems_of(error: ValidationError, source: Source, schema: type[BaseModel]) -> list[Problem]:
    """All problems of a validation; the missing fields of one part are said together."""
    found: list[Problem] = []
    missing: dict[Where, list[str]] = {}
    unknown: set[Where] = set()
    for item in error.errors(include_url=False):
        path = _path(item["loc"], source)
        context: dict[str, Any] = item.get("ctx", {})
        kind = item["type"]
        if kind == "refused":
            for at, message in context.get("all", [(context.get("at", ()), context["message"])]):
                found.append(source.problem((*path, *at), message, context.get("hint", "")))
            if path[-1:] == ("type",):
                unknown.add(path[:-1])
        elif kind == "missing":
            missing.setdefault(path[:-1], []).append(path[-1])
        elif kind == "extra_forbidden":
            found.append(source.problem(path, *_unknown_key(path, schema, source), key=True))
        elif kind in ("literal_error", "union_tag_invalid"):
            path = path if kind == "literal_error" else (*path, "dist")
            found.append(source.problem(path, *_not_accepted(source.get(path), context)))
        elif kind == "union_tag_not_found":
            found.append(source.problem(path, *_no_distribution(source.get(path))))
        elif kind == "tuple_type":
            example = "{what: link_down, at: 12 s, for: 5 s}" if path == ("faults",) else "{name: ...}"
            message = f"expected a list such as [{example}]; found {shown(item['input'])}"
            found.append(source.problem(path, message))
        else:  # a section that is no mapping
            keys = ", ".join(_fields(path, schema, source)[:4])
            found.append(source.problem(path, f"expected a mapping with keys such as {keys}; found {shown(item['input'])}"))
    unsaid = {path: names for path, names in missing.items() if path not in unknown and not _said(path, source)}
    found += [_missing(path, names, schema, source) for path, names in unsaid.items()]
    return found


def _said(path: Where, source: Source) -> bool:
    """A config.json that gives no fields was refused already."""
    return path == ("model",) and source.has(("model", "config")) and bool(source.problems)


def _path(loc: Iterable[int | str], source: Source) -> Where:
    """pydantic's location without the tags of unions (`lognormal` in input.lognormal.mean)."""
    path: Where = ()
    for step in loc:
        node = source.get(path)
        is_tag = isinstance(node, dict) and step == node.get("dist") and str(step) not in node
        if not is_tag:
            path = (*path, str(step))
    return path


def _unknown_key(path: Where, schema: type[BaseModel], source: Source) -> tuple[str, str]:
    fields = _fields(path[:-1], schema, source)
    near = did_you_mean(path[-1], fields)
    return "unknown key", near or f"the keys here are: {', '.join(fields)}"


def _not_accepted(found: Any, context: dict[str, Any]) -> tuple[str, str]:
    expected = str(context.get("expected") or context.get("expected_tags"))
    accepted = re.findall(r"'([^']*)'", expected) or re.split(", | or ", expected)  # texts, else numbers
    near = did_you_mean(found, accepted) if isinstance(found, str) else ""
    if len(accepted) == 1:
        return f"{shown(found)} is not modelled; the only value so far is '{accepted[0]}'", near
    return f"{shown(found)} is not accepted; expected one of: {', '.join(accepted)}", near


def _no_distribution(found: Any) -> tuple[str, str]:
    example = "{dist: fixed, tokens: 512 tokens}"
    if not isinstance(found, dict):
        return f"expected a distribution such as {example}, found {shown(found)}", ""
    return f"needs dist: one of fixed, uniform, lognormal, geometric, empirical; write for example {example}", ""


def _missing(path: Where, names: list[str], schema: type[BaseModel], source: Source) -> Problem:
    model = _model(path, schema, source)
    if model is not None and issubclass(model, Part):
        what, listing = SINGULAR[model.kind], f"`speckvsim catalog {model.kind}` lists the names"
        if source.get((*path, "type")) is None:
            if path == ("kv", "codec"):
                return source.problem(path, f"no value for {', '.join(names)}", key=True)
            return source.problem(path, f"needs a type (the name of a {what}), or {_few(names)} as well", listing, key=True)
        return source.problem(path, f"nobody published {', '.join(names)} of this {what}; give a value", key=True)
    plural = "keys" if len(names) > 1 else "key"
    return source.problem(path, f"missing {plural}: {', '.join(names)}", key=True)


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more fields"


def _fields(path: Where, schema: type[BaseModel], source: Source) -> list[str]:
    model = _model(path, schema, source)
    extra = ["bandwidth"] if model is not None and issubclass(model, Part) and model.kind == "links" else []
    return [*model.model_fields, *extra] if model is not None else []


def _model(path: Where, schema: type[BaseModel], source: Source) -> type[BaseModel] | None:
    """The section class at `path`."""
    model: type[BaseModel] | None = schema
    for depth, key in enumerate(path, 1):
        if key.isdigit() and isinstance(source.get(path[: depth - 1]), list):
            continue
        field = model.model_fields.get(key) if model is not None else None
        if field is None:
            return None
        node = source.get(path[:depth])
        model = _section(field.annotation, node.get("dist") if isinstance(node, dict) else None)
    return model


def _section(annotation: Any, dist: Any) -> type[BaseModel] | None:
    """The section class in an annotation such as `Pool | None`; of several distributions the one called `dist`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [model for part in getattr(annotation, "__args__", ()) if (model := _section(part, dist)) is not None]
    named = [model for model in found if "dist" in model.model_fields and _tag(model) == dist]
    return next(iter(named or found), None)


def _tag(model: type[BaseModel]) -> Any:
    return model.model_fields["dist"].annotation.__args__[0]  # type: ignore[union-attr]
