"""The report in a real browser: no console error, no request, tables sort, series hide, values show, markup is text.

Needs `chromium` on PATH; nothing is downloaded. The page gets a script at its head that notes what goes wrong, and one at its
end that uses it as a reader would and leaves what it saw in the page, which the browser then prints.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from analysis.figures.results import open_as_one
from analysis.report.page import page, write
from tests.figures.conftest import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OUTSIDE = r"""(src|href)\s*=\s*["'](?!#|data:)|@import|url\(\s*["']?(?!#)"""
pytestmark = pytest.mark.slow
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; Debian's package is `chromium`")

WATCH = """<script>
window.seen = {alerts: [], errors: [], violations: []};
window.alert = (text) => seen.alerts.push(text);
window.addEventListener("error", (event) => seen.errors.push(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => seen.violations.push(event.blockedURI));
const written = console.error; console.error = (...all) => { seen.errors.push(all.join(" ")); written(...all); };
</script>"""
USE = """<script>{
const column = (table, at) => [...table.tBodies[0].rows].map((row) => row.cells[at].dataset.sort ?? row.cells[at].textContent);
seen.tables = [...document.querySelectorAll("table.sortable")].map((table) => {
  const at = table.tHead.rows[0].cells.length - 1;
  return [...table.tHead.rows[0].cells].map((head, at) => {
    head.click(); const up = column(table, at); head.click(); return [head.textContent, up, column(table, at)];
  });
});
seen.toggles = [...document.querySelectorAll("input[data-hides]")].map((box) => {
  const shown = () => [...box.closest("figure").querySelectorAll(".series")]
    .filter((part) => part.dataset.series === box.dataset.hides).map((part) => getComputedStyle(part).display);
  const before = shown(); box.click(); const hidden = shown(); box.click(); return [before, hidden, shown()];
});
const spots = [...document.querySelectorAll(".spot")];
spots[0].dispatchEvent(new PointerEvent("pointerenter", {clientX: 50, clientY: 50}));
const tip = document.getElementById("tip");
seen.tip = [spots.length, spots[0].dataset.tip, tip.textContent, getComputedStyle(tip).display];
seen.title = document.title; seen.heading = document.querySelector("h1").textContent;
seen.resources = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.width = [document.documentElement.scrollWidth, window.innerWidth];
const print = document.createElement("pre"); print.id = "seen"; print.textContent = JSON.stringify(seen);
document.body.append(print);
}</script>"""


def opened(html: str, folder: Path, width: int = 1280) -> tuple[dict[str, Any], str]:
    """(what the page saw, what the browser wrote to its log)."""
    file = folder / "report.html"
    file.write_text(html.replace("<head>", "<head>" + WATCH, 1).replace("</body>", USE + "</body>", 1), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1])), done.stderr


@pytest.fixture(scope="module")
def pages(run_folder: Path, hostile_folder: Path, sweep_folder: Path) -> dict[str, str]:
    folders = {"run": [hostile_folder], "runs": [run_folder, hostile_folder], "sweep": [sweep_folder]}
    return {name: page(open_as_one(each)) for name, each in folders.items()}


@in_browser
@pytest.mark.parametrize("which", ["run", "runs", "sweep"])
def test_report_in_a_browser(which: str, pages: dict[str, str], tmp_path: Path):
    """Would catch: a script that fails, a font or script from elsewhere, a table that does not sort, a toggle without effect,
    a name that is run as markup (all three have it in their names).
    """
    seen, log = opened(pages[which], tmp_path)
    assert seen["alerts"] == seen["errors"] == seen["violations"] == seen["resources"] == []
    assert "CONSOLE" not in log
    assert HOSTILE in seen["heading"] and HOSTILE in seen["title"]
    assert seen["tables"] and seen["toggles"]
    for table in seen["tables"]:
        for name, up, down in table:
            known = [text for text in up if text != ""]
            assert known == [text for text in down if text != ""][::-1] or len(set(known)) < len(known), name
            if all(re.fullmatch(r"-?\d+(\.\d+)?(e[-+]?\d+)?", text) for text in known):
                assert [float(text) for text in known] == sorted(float(text) for text in known), name
    for before, hidden, after in seen["toggles"]:
        assert before == after and set(hidden) == {"none"} != set(before)
    spots, wanted, shown, display = seen["tip"]
    assert spots > 10 and wanted == shown and display == "block"


@in_browser
def test_report_fits_a_phone(pages: dict[str, str], tmp_path: Path):
    """Would catch: a table or figure that makes the whole page scroll sideways."""
    for name, html in pages.items():
        (tmp_path / name).mkdir()
        seen, _ = opened(html, tmp_path / name, width=500)
        assert seen["width"][0] <= seen["width"][1], name


def test_report_without_a_browser(pages: dict[str, str], run_folder: Path, tmp_path: Path):
    """Would catch: a file over 3 MB, markup of a name left unescaped, an address outside of the file, other bytes each time."""
    for name, html in pages.items():
        assert len(html.encode()) < 3_000_000
        assert HOSTILE not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html, name
        assert not re.search(OUTSIDE, html), name
        assert "Content-Security-Policy" in html
    one, other = (write(open_as_one([run_folder]), tmp_path / name) for name in ("a.html", "deep/b.html"))
    assert one.read_bytes() == other.read_bytes()
    text = one.read_text(encoding="utf-8")
    for said in ("Resolved scenario", "Limits of validity", "Provenance", "all held", "95 %", "kv.l1"):
        assert said in text, said
