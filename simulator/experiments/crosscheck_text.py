"""`speckvsim crosscheck` as plain text: validity, the window, both models side by side, the detailed devices."""

from __future__ import annotations

from typing import Any

from simulator.experiments.render import seconds, table


def render(found: dict[str, Any]) -> str:
    """The whole comparison, ready to print."""
    window, train = found["window"], found["descriptors_per_train"]
    burst = found["burst_bytes"] / 1024
    moved = f"moved in trains of {train}" if train > 1 else "one by one"
    lines = [
        f"{found['name']}   {found['sha256'][:12]}",
        "inside the validity of the fluid model" if found["valid"] else "outside the validity of the fluid model:",
        *(f"  {reason}" for reason in found["reasons"]),
        f"window: {window['steps']} steps from step {window['first_step']}, {window['far_bytes'] / 1e9:.3g} GB of far KV",
        f"bursts of {burst:g} KiB, {moved}; 1 of {found['slices']} equal slices simulated",
        "",
    ]
    rows = [
        {
            "metric": name,
            "fluid": _value(name, value),
            "detailed": _value(name, found["detailed"][name]),
            "diff": "-" if found[f"{name}_diff_pct"] is None else f"{found[f'{name}_diff_pct']:+.2f} %",
        }
        for name, value in found["fluid"].items()
    ]
    devices = [
        {
            "device": row["device"],
            "bursts": f"{row['bursts']:,}",
            "wire": f"{row['wire_bytes'] / 1e9:.3g} GB",
            "busy": f"{row['utilization']:.1%}",
            "blocked": seconds(row["blocked_s"]),
        }
        for row in found["devices"]
    ]
    return "\n".join(lines) + "\n" + table(rows) + "\n" + table(devices)


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return seconds(value) if "_s_" in name else f"{value:.4g} /s"
