"""Fill a scenario up from the catalogue: the user's values stay, a preset's go under them with their source.

    model: NAME            ->  {type: NAME}  ->  all fields of the catalogue's model
    gpus.link              ->  the GPU's own link unless the user names another
    link.bandwidth         ->  read_bandwidth and write_bandwidth
    kv.system              ->  defaults for `kv`, and for `prefetch` unless the user chooses another predictor
    scheduler.engine       ->  host_overhead;    cost.prices -> the fields of `cost` and kv_pool.memory_price

Names that the catalogue does not know are left alone: the schema refuses them with their line.
"""

from __future__ import annotations

from typing import Any

from simulator import catalog
from simulator.scenario.source import Place, Source, Where

_POOL: Where = ("cluster", "kv_pool")
_GPUS: Where = ("cluster", "gpus")
_CODEC: Where = ("kv", "codec")
NAMED: dict[Where, str] = {
    ("model",): "models",
    _GPUS: "gpus",
    (*_GPUS, "link"): "links",
    (*_POOL, "board"): "boards",
    (*_POOL, "link"): "links",
    (*_POOL, "switch"): "switches",
    _CODEC: "codecs",
}
_BUDGET: Where = ("kv", "selection", "tokens")
_MAY_BE_NONE: tuple[Where, ...] = (("kv", "l1"), _POOL, (*_POOL, "switch"), _CODEC, ("workload", "trace", "limit"))
_SPELLED: dict[str, Where] = {  # fields of a KV system that a scenario spells differently
    "kv.block_tokens": ("kv", "block"),
    "kv.eviction": ("kv", "placement", "eviction"),
    "kv.selection.budget": _BUDGET,
}
DEFAULT_PRICES = "2026-11"


def fill(source: Source) -> None:
    """Complete `source` in place."""
    for path in _MAY_BE_NONE:
        if source.get(path) == "none":
            source.get(path[:-1])[path[-1]] = None
    _fill_system(source)
    for path, kind in NAMED.items():
        name_as_type(source, path)
        if kind == "links":
            _split_bandwidth(source, path)
        values, sources = _entry(kind, source.get((*path, "type")))
        for field, value in values.items():
            text = f"preset {source.get((*path, 'type'))}: {sources[field]}"
            if isinstance(value, dict):
                value, degree = catalog.at_degree(value, _ranks(source))
                text += f" (at {degree} GPUs)"
            _under(source, (*path, field), value, text)
    _fill_engine(source)
    _fill_prices(source)


def name_as_type(source: Source, path: Where) -> None:
    """`link: NAME` as `link: {type: NAME}`; problems still speak of `link`."""
    name = source.get(path)
    if isinstance(name, str):
        key, value = source.place(path, key=True), source.place(path)
        source.put((*path, "type"), name, value)
        source.keys[path], source.values[path] = key, value
        source.spoken[(*path, "type")] = path


def _entry(kind: str, name: Any) -> tuple[dict[str, Any], dict[str, str]]:
    if not isinstance(name, str) or name not in catalog.names(kind) or (kind, name) == ("codecs", "none"):
        return {}, {}
    entry = catalog.load(kind, name)
    return entry.values, entry.sources


def _under(source: Source, path: Where, value: Any, text: str) -> None:
    """Put a preset's value where the user gave none."""
    if path in NAMED and isinstance(source.get(path), dict):
        path = (*path, "type")  # the user overrides fields of the preset's own link or codec
    parent = source.get(path[:-1])
    if value is not None and not source.has(path) and (parent is None or isinstance(parent, dict)):
        source.put(path, value, Place(text, preset=True))


def _split_bandwidth(source: Source, path: Where) -> None:
    value = source.get((*path, "bandwidth"))
    if value is None:
        return
    place = source.place((*path, "bandwidth"))
    both = [field for field in ("read_bandwidth", "write_bandwidth") if not source.has((*path, field))]
    if len(both) < 2:
        message = "bandwidth sets both directions; give either it or read_bandwidth and write_bandwidth"
        source.problems.append(source.problem((*path, "bandwidth"), message))
    del source.get(path)["bandwidth"]
    for field in both:
        source.put((*path, field), value, place)
        source.spoken[(*path, field)] = (*path, "bandwidth")
    source.keys[(*path, "bandwidth")] = source.values[(*path, "bandwidth")] = place


def _ranks(source: Source) -> int:
    ranks = source.get((*_GPUS, "tensor_parallel")) or source.get((*_GPUS, "count")) or 1
    return ranks if isinstance(ranks, int) else 1


def _fill_system(source: Source) -> None:
    name = source.get(("kv", "system"))
    values, sources = _entry("kv_systems", name)
    if name == "none" or not values:
        return
    if source.get(_POOL) is None:
        message = f"the system '{name}' keeps KV in a pool, but there is no cluster.kv_pool"
        source.problems.append(source.problem(("kv", "system"), message, "add a kv_pool, or write system: none"))
        return
    own = values.get("prefetch.predictor")
    predictor = source.get(("prefetch", "predictor"))
    for field, value in values.items():
        path = _SPELLED.get(field, tuple(field.split(".")))
        if path[0] == "prefetch" and predictor not in (None, own):
            continue
        if path == _BUDGET and "budget" not in (source.get((*_BUDGET[:-1], "kind")), values.get("kv.selection.kind")):
            continue
        _under(source, path, value, f"preset {name}: {sources[field]}")


def _fill_engine(source: Source) -> None:
    path = ("scheduler", "engine")
    if source.has(path) and source.has(("scheduler", "host_overhead")):
        problem = source.problem(path, "give either engine or host_overhead, not both")
        source.problems.append(problem)
        return
    name = source.get(path)
    values, sources = _entry("engines", name)
    for field, value in values.items():
        _under(source, tuple(field.split(".")), value, f"preset {name}: {sources[field]}")


def _fill_prices(source: Source) -> None:
    name = source.get(("cost", "prices")) or DEFAULT_PRICES
    values, sources = _entry("prices", name)
    for field, value in values.items():
        text = f"preset {name}: {sources[field]}"
        if field == "memory_price":
            if isinstance(source.get(_POOL), dict):
                _under(source, (*_POOL, field), value, text)
        elif isinstance(source.get(("cost",)) or {}, dict):
            _under(source, ("cost", field), value, text)
