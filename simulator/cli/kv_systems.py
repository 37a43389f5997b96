"""What `speckvsim catalog kv_systems` says: all systems in a table, or one explained."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from simulator.catalog import Entry, load, names

WIDTH = 100


def listing() -> list[dict[str, Any]]:
    rows = []
    for name in names("kv_systems"):
        entry = load("kv_systems", name)
        needs = ", ".join(entry.unknown)
        about = entry.about
        rows.append(
            {"name": name, "expressible": about["expressible"], "class": about["class"], "title": entry.title, "needs": needs}
        )
    return rows


def brief(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The listing for a terminal: titles cut, how many values a scenario has to give."""
    cut = [row | {"needs": row["needs"].count(", ") + 1 if row["needs"] else 0, "title": row["title"][:64]} for row in rows]
    return [{key: row[key] for key in ("name", "expressible", "needs", "class", "title")} for row in cut]


def document(entry: Entry) -> dict[str, Any]:
    """What is known of a system, for `--json`; `rows` as for every entry of the catalogue."""
    rows = [{"field": field, "value": value, "source": entry.sources[field]} for field, value in entry.values.items()]
    return {"rows": rows, "name": entry.name, "title": entry.title, **entry.about, "needs": entry.unknown}


def explained(entry: Entry) -> str:
    about = entry.about
    parts = [f"{entry.name}: {entry.title}", f"{about['class']}, expressible in {_degree(about['expressible'])}"]
    parts.append(fill(about["mechanism"], WIDTH))
    if "partial" in about:
        parts.append(fill(f"Why in part: {about['partial']}.", WIDTH))
    values = {field: "?" if value is None else value for field, value in entry.values.items()}
    lines = [f"  {field} = {value}    ({entry.sources[field]})" for field, value in values.items()]
    parts.append("\n".join(["Values", *(lines or ["  none: the identity"])]))
    if about["headlines"]:
        parts.append("\n".join(["Published", *(f"  {headline(one)}" for one in about["headlines"])]))
    parts.append(f"Quality (as published, not simulated): {about['quality']}")
    if entry.unknown:
        parts.append("Give before a run, as nobody published them: " + ", ".join(entry.unknown))
    if about["sources"]:
        parts.append("Sources: " + "; ".join(about["sources"]))
    return "\n\n".join(parts) + "\n"


def headline(one: dict[str, Any]) -> str:
    """A published result in a line: metric, value, against what, under which conditions, where it was found; why it is not
    checked, if so."""
    value = one.get("value")
    shown = "" if value is None else ": " + (_joined(value, one.get("bound")))
    unit = one.get("unit", "")
    shown += f"{'' if unit in ('x', '%') else ' '}{unit}" if value is not None else ""
    bound = f" ({one['bound'].replace('_', ' ')})" if one.get("bound") not in (None, "reported") else ""
    against = f" against {one['baseline']}" if one.get("baseline") else ""
    where = f"; {one['conditions']}" if one.get("conditions") else ""
    why = f"; not checked: {one['not_checked']}" if "not_checked" in one else ""
    return f"{one['metric']}{shown}{bound}{against}{where} [{one.get('source', '')}]{why}"


def _degree(expressible: str) -> str:
    return {"full": "full", "partial": "part"}[expressible]


def _joined(value: Any, bound: str | None) -> str:
    """Several values are a range, or one for each of several baselines."""
    if not isinstance(value, list):
        return str(value)
    return (" to " if bound == "range" else " / ").join(map(str, value))
