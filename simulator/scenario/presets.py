"""Fill a scenario up from the catalogue: the user's values stay, a preset's go under them with their source.

    model: NAME            ->  {type: NAME}  ->  all fields of the catalogue's model
    model.config           ->  the fields that a Hugging Face config.json gives
    model.weights, .kv     ->  bytes of an element in that format
    gpus.link              ->  the GPU's own link unless the user names another
    link.bandwidth         ->  read_bandwidth and write_bandwidth
    link.protocol          ->  the same and requests, by the arithmetic of packets and flits (`protocol`)
    kv.system              ->  defaults for `kv`, and for `prefetch` unless the user chooses another predictor
    scheduler.engine       ->  host_overhead; reserve and activations of the GPUs
    cost.prices            ->  the fields of `cost` and kv_pool.memory_price

Names that the catalogue does not know are left alone: the schema refuses them with their line.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from simulator import catalog
from simulator.catalog.aliases import canonical
from simulator.errors import InputError, did_you_mean
from simulator.scenario.hf_config import fields_of, name_of
from simulator.scenario.precision import EMBEDDINGS, KV, WEIGHTS
from simulator.scenario.protocol import LANES, PROTOCOLS, payload
from simulator.scenario.quantities import shown
from simulator.scenario.source import Place, Source, Where
from simulator.units import format_quantity, parse

_POOL: Where = ("cluster", "kv_pool")
_GPUS: Where = ("cluster", "gpus")
_CODEC: Where = ("kv", "codec")
NAMED: dict[Where, str] = {
    ("model",): "models",
    _GPUS: "gpus",
    (*_GPUS, "link"): "links",
    ("cluster", "transfer", "link"): "links",
    (*_POOL, "board"): "boards",
    (*_POOL, "link"): "links",
    (*_POOL, "switch"): "switches",
    (*_POOL, "copy_engine"): "copy_engines",
    (*_POOL, "leaf"): "switches",
    _CODEC: "codecs",
}
_MAY_BE_NONE: tuple[Where, ...] = (
    ("kv", "l1"), ("kv", "blocks"), _POOL, (*_POOL, "switch"), (*_POOL, "leaf"), (*_POOL, "copy_engine"), _CODEC,
    ("workload", "trace", "limit"),
)  # fmt: skip
_SPELLED: dict[str, Where] = {  # fields of a KV system that a scenario spells differently
    "kv.block_tokens": ("kv", "block"),
    "kv.eviction": ("kv", "placement", "eviction"),
}
_OF_A_POOL = ("kv.l2", "prefetch.predictor")
DEFAULT_PRICES = "2026-11"


def fill(source: Source, base_dir: str = ".") -> None:
    """Complete `source` in place; the path of a model's config.json is relative to `base_dir`."""
    for path in _MAY_BE_NONE:
        if source.get(path) == "none":
            source.get(path[:-1])[path[-1]] = None
    _fill_system(source)
    for path, kind in NAMED.items():
        name_as_type(source, path)
        if kind == "models":
            _fill_model(source, base_dir)
        if kind == "links":
            _split_bandwidth(source, path)
            _compute_bandwidth(source, path)
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


def _fill_model(source: Source, base_dir: str) -> None:
    """Names by their aliases, formats as bytes, a config.json as fields; all under what the user gives."""
    path: Where = ("model",)
    name = source.get((*path, "type"))
    if isinstance(name, str):
        source.get(path)["type"] = canonical(name, catalog.names("models"))
    for field, table, target in (("weights", WEIGHTS, "weight_bytes"), ("kv", KV, "kv_bytes")):
        precision = source.get((*path, field))
        if isinstance(precision, str) and precision in table:
            _under(source, (*path, target), table[precision], f"{field}: {precision}")
            if field == "weights" and table[precision] < EMBEDDINGS:
                _under(source, (*path, "embedding_bytes"), EMBEDDINGS, "checkpoints keep embeddings in 16 bits")
    file = source.get((*path, "config"))
    if not isinstance(file, str):
        return
    if name is not None:
        source.problems.append(source.problem((*path, "config"), "give either type or config, not both"))
        return
    at = Path(base_dir, file)
    try:
        values, keys = fields_of(at)
    except InputError as error:
        where = source.place((*path, "config"))
        found = [replace(problem, where=f"{where}  {problem.where}") for problem in error.problems]
        source.problems += [replace(problem, field=f"model.config: {problem.field}".rstrip(": ")) for problem in found]
        return
    _under(source, (*path, "name"), name_of(at), "the folder or file of the config")
    for field, value in values.items():
        if field in ("max_context", "window"):
            value = f"{value} tokens"
        _under(source, (*path, field), value, f"{file}: {keys.get(field, 'architectures')}")


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


def _compute_bandwidth(source: Source, path: Where) -> None:
    """`protocol: {kind: pcie, generation: 5, lanes: 16, packet: 256 B}` in place of bandwidths."""
    at = (*path, "protocol")
    if not source.has(at):
        return
    given, found = source.get(at), len(source.problems)
    values = dict(given) if isinstance(given, dict) else {}
    kind, generation, lanes = (values.pop(name, None) for name in ("kind", "generation", "lanes"))
    if not isinstance(kind, str) or kind not in PROTOCOLS:
        hint = did_you_mean(str(kind), list(PROTOCOLS))
        message = f"expected a mapping with kind ({', '.join(PROTOCOLS)}), generation and lanes; found kind {shown(kind)}"
        source.problems.append(source.problem(at, message, hint))
        return
    for name, value, allowed in (("generation", generation, PROTOCOLS[kind]), ("lanes", lanes, LANES)):
        if type(value) is not int or value not in allowed:
            message = f"expected one of {', '.join(map(str, allowed))} for {kind}, found {shown(value)}"
            source.problems.append(source.problem((*at, name), message))
    options: dict[str, Any] = {}
    for name, value in values.items():
        if kind == "pcie" and name in ("packet", "request"):
            try:
                options[name] = parse(value if isinstance(value, str) else str(value), "size")
            except ValueError as error:
                source.problems.append(source.problem((*at, name), str(error)))
            else:
                if not 1.0 <= options[name] <= 4096.0:
                    source.problems.append(source.problem((*at, name), f"expected 1 B to 4 KiB, found {shown(value)}"))
        elif kind == "cxl-68b" and name == "packed" and isinstance(value, bool):
            options[name] = value
        else:
            source.problems.append(source.problem((*at, name), f"{kind} does not use {name}: {shown(value)}; remove it"))
    for name in ("read_bandwidth", "write_bandwidth", "requests"):
        if source.has((*path, name)):
            source.problems.append(source.problem((*path, name), "the protocol gives it; write either of them"))
    if len(source.problems) > found:
        return
    place = source.place(at)
    computed = payload(kind, generation, lanes, **options)
    del source.get(path)["protocol"]
    source.put((*path, "read_bandwidth"), format_quantity(computed.read, "rate"), place)
    source.put((*path, "write_bandwidth"), format_quantity(computed.write, "rate"), place)
    source.put((*path, "requests"), computed.requests, place)


def _ranks(source: Source) -> int:
    """GPUs that take part in a collective: a tensor-parallel group, an expert group, two stages of a pipeline."""
    keys = ("count", "tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel")
    given = (source.get((*_GPUS, key)) for key in keys)
    count, ranks, stages, replicas, group = (value if isinstance(value, int) and value > 0 else None for value in given)
    return max(ranks or (count or 1) // ((stages or 1) * (replicas or 1)), group or 1, 2 if (stages or 1) > 1 else 1)


def _fill_system(source: Source) -> None:
    """Defaults of a published system; what nobody published has to be given (`open_fields`)."""
    name = source.get(("kv", "system"))
    values, sources = _entry("kv_systems", name)
    if any(field in values for field in _OF_A_POOL) and source.get(_POOL) is None:
        message = f"the system '{name}' keeps KV in a pool, but there is no cluster.kv_pool"
        source.problems.append(source.problem(("kv", "system"), message, "add a kv_pool, or write system: none"))
        return
    used = [field for field in values if not _chosen_otherwise(source, values, path_of(field))]
    missing = [".".join(path_of(field)) for field in used if values[field] is None and not source.has(path_of(field))]
    if missing:
        message = f"nobody published {' and '.join(missing)} of '{name}'; give {'it' if len(missing) == 1 else 'them'}"
        source.problems.append(source.problem(("kv", "system"), message, f"`speckvsim catalog kv_systems {name}` explains it"))
        return
    for field in used:
        path = path_of(field)
        for depth in range(1, len(path)):
            if path[:depth] in NAMED:
                name_as_type(source, path[:depth])
        _under(source, path, values[field], f"preset {name}: {sources[field]}")


def path_of(field: str) -> Where:
    """Where a scenario has a field of a KV system."""
    return _SPELLED.get(field, tuple(field.split(".")))


def _chosen_otherwise(source: Source, values: dict[str, Any], path: Where) -> bool:
    """The user chose another kind of the section (another predictor): the rest of the preset's is not about it."""
    key = "predictor" if path[0] == "prefetch" else "kind"
    section = path[:-1]
    own = values.get(".".join((*section, key)))
    return own is not None and source.get((*section, key)) not in (None, own)


def _fill_engine(source: Source) -> None:
    name = source.get(("scheduler", "engine"))
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
