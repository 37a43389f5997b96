"""`speckvsim explain` as plain text: aligned tables of the dict that `explain` returns."""

from __future__ import annotations

from typing import Any

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def render(found: dict[str, Any]) -> str:
    """The whole explanation, ready to print; what needs attention comes first."""
    sections = [("Warnings", [[warning] for warning in found["warnings"]] or [["none"]])]
    sections += [("Workload", _pairs(found["workload"])), ("Capacity", _capacity(found["capacity"]))]
    for direction, path in (found["paths"] or {}).items():
        sections.append((f"Path of far KV: {direction}", _path(path)))
    if found["replicas"]:
        sections.append((f"Replicas, routing {found['replicas']['routing']}", _replicas(found["replicas"])))
    if found["tenants"]:
        sections.append(("Tenants on the fabric", _tenants(found["tenants"])))
    if found["devices"]:
        sections.append((f"Devices of far memory: {found['devices']['model']}", _devices(found["devices"]["curves"])))
    if found["faults"]:
        sections.append(("Faults, each alone", [_fault(fault) for fault in found["faults"]]))
    if found["bounds"]:
        sections.append(("Bounds", _bounds(found["bounds"])))
    sections.append(("Values", [[row["field"], str(row["value"]), row["source"]] for row in found["values"]]))
    blocks = [f"{found['name']}   {found['sha256'][:12]}"]
    blocks += [f"{title}\n{_table(rows)}" for title, rows in sections]
    return "\n\n".join(blocks) + "\n"


def _capacity(capacity: dict[str, Any]) -> list[list[str]]:
    tiers = capacity["tiers"]
    rows = [[f"{line['item']} per GPU", _human_signed(line["bytes"]), line["how"]] for line in capacity["ledger"]]
    rows += _pairs({key: value for key, value in capacity.items() if key not in ("tiers", "ledger")})
    for name, tier in tiers.items():
        rows.append([name, _human(tier["bytes"], "B"), f"{tier['blocks']:,} blocks", f"{tier['tokens']:,} tokens"])
    return rows


def _path(path: dict[str, Any]) -> list[list[str]]:
    rows = [["stage", "capacity", "wire/raw", "raw KV"]]
    for stage in path["stages"]:
        mark = "<- bound" if stage["stage"] == path["bound"] else ""
        raw, rate = _human(stage["raw_bytes_per_s"], "B/s"), _human(stage["bytes_per_s"], "B/s")
        rows.append([stage["stage"], rate, f"{stage['wire_per_raw']:.3g}", raw, mark])
    outstanding = "<- bound" if path["bound"] == "outstanding" else ""
    rows.append(["outstanding", "", "", _human(path["outstanding_raw_bytes_per_s"], "B/s"), outstanding])
    rows.append(["latency", _human_time(path["latency_s"])])
    way = " + ".join(f"{part['device']} {_human_time(part['seconds'])}" for part in path["latency_parts"])
    rows.append(["  its parts", way])
    for one in path["ways"]:
        alone = _human(one["raw_bytes_per_s"], "B/s")
        rows.append(["one alone", "", "", alone, f"<- {one['bound']}; {one['way']}"])
    return rows


def _replicas(found: dict[str, Any]) -> list[list[str]]:
    """Groups, what they share, the way between them."""
    rows = [["group", "role", "replicas", "GPUs each", "L1", "max_batch", "far reads alone"]]
    for group in found["groups"]:
        gpus, far = f"{group['gpus']} {group['gpu']}", group["far_read_alone_bytes_per_s"]
        alone = f"{_human(far, 'B/s')} <- {group['bound']}" if far else "-"
        counts = [f"{group['replicas']}", gpus, f"{group['l1_blocks']:,} blocks", f"{group['max_batch']}"]
        rows.append([group["group"], group["role"], *counts, alone])
    pool, way = found["pool"], found["transfer"]
    if pool is not None:
        rows.append(["pool", "one for all" if pool["shared"] else "one for each replica"])
        for stage in pool["stages"]:
            rate = "descriptors" if stage["bytes_per_s"] is None else _human(stage["bytes_per_s"], "B/s")
            rows.append([f"  {stage['stage']}", rate, f"shared by {stage['replicas']} replicas"])
    if way is not None:
        token, knee = _human(way["kv_bytes_per_token"], "B"), way["prompt_tokens_per_s"]
        least = f"prompts from {way['threshold_tokens']} tokens on"
        rows.append(["transfer", _human_time(way["latency_s"]), f"{token} a token", least])
        rows += [[f"  {stage['stage']}", _human(stage["bytes_per_s"], "B/s")] for stage in way["stages"]]
        rows.append(["  its links keep up with", "any rate" if knee is None else f"{knee:,.0f} prompt tokens/s"])
    return rows


def _tenants(found: list[dict[str, Any]]) -> list[list[str]]:
    """Shares of flows, budgets, and where the tenants are served."""
    rows = [["tenant", "requests drawn", "flows count as", "bandwidth, raw", "burst", "served by"]]
    for one in found:
        limit = one["bandwidth_bytes_per_s"]
        rate, burst = _human(limit, "B/s"), _human(one["burst_bytes"], "B") if limit else "-"
        shares = [f"{one['requests_share']:.1%}", f"{one['flow_counts_as']:.3g} {one['flows']}"]
        rows.append([one["tenant"], *shares, rate, burst, ", ".join(one["served_by"]) or "the one replica"])
    return rows


def _devices(curves: list[dict[str, Any]]) -> list[list[str]]:
    """Latency of each device alone, at half load and when others saturate it."""
    rows = [["device", "alone", "half load", "saturated", "rate"]]
    for device in curves:
        curve = device["curve"]
        times = [_human_time(curve[at]["seconds"]) for at in (0, len(curve) // 2, -1)]
        rows.append([device["device"], *times, _human(device["bytes_per_s"], "B/s")])
    return rows


def _fault(fault: dict[str, Any]) -> list[str]:
    """One line: what, when, what is left, what becomes of lost pages."""
    mean, lasts, rate = fault["mean_time_between_s"], fault["duration_s"], fault["read_raw_bytes_per_s"]
    when = f"at {_human_time(fault['at_s'])}" if mean is None else f"every {_human_time(mean)} on average"
    until = "for good" if lasts is None else f"for {_human_time(lasts)}"
    way = f"reads {_human(rate, 'B/s')} raw after {_human_time(fault['read_latency_s'])}" if rate else "far pages out of reach"
    room = f"L3 {fault['l3_blocks']:,} blocks"
    whose = None if fault["replica"] is None else f"of replica {fault['replica']}"
    what = " ".join(filter(None, (fault["what"], fault["link"] and f"({fault['link']})", whose)))
    lost = f"lost pages: {fault['on_loss']}" if fault["on_loss"] else "no page is lost"
    return [what, f"{when} {until}", way, room, lost]


def _bounds(bounds: dict[str, Any]) -> list[list[str]]:
    rows = [["batch", f"{bounds['batch']:.0f}", f"of {bounds['context_tokens']:.0f} tokens"]]
    rows += [[f"a sequence: {name}", *row] for name, *row in _pairs(bounds["sequence"]) if row != ["-"]]
    for name, rate in bounds["decode_tokens_per_s"].items():
        mark = "<- bound" if name == bounds["decode_bound_by"] else ""
        rows.append([f"decode by {name}", _human(rate, "tokens/s"), mark])
    for name, rate in bounds["requests_per_s"].items():
        rows.append([f"requests by {name}", _human(rate, "/s")])
    expected = bounds["expected"]
    step = f"step {_human_time(expected['decode_step_s'])}"
    rows.append(["decode without stalls", _human(expected["decode_tokens_per_s"], "tokens/s"), step])
    return rows


def _pairs(values: dict[str, Any]) -> list[list[str]]:
    return [[name, "-" if value is None else _value(name, value)] for name, value in values.items()]


def _value(name: str, value: float) -> str:
    if "bytes" in name:
        return _human(value, "B")
    if name == "too_long":
        return f"{value:.1%}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _human(value: float | None, unit: str) -> str:
    """Four digits with a decimal prefix; no limit is a dash."""
    if value is None:
        return "no limit"
    for factor, prefix in _PREFIXES:
        if value >= factor and unit != "/s":
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def _human_signed(size: float) -> str:
    """Bytes to add or (with a sign) to take away, binary: capacities of memories are."""
    return f"{size / 2**30:,.3f} GiB" if abs(size) >= 2**30 / 1000 else f"{size:,.0f} B"


def _human_time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def _table(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; the last cell of a row may be long."""
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, 0), len(cell))
    lines = []
    for row in rows:
        cells = [cell.ljust(widths.get(column, 0)) for column, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
