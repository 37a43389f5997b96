"use strict";
// Tables sort by the column that is clicked: numbers by value, all else as text; again turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows];
      const sizes = { "": 1, n: 1e-9, u: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9 };
      const value = (text) => {
        const found = /^([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*(?:([numkMG]?)(?:s|B|J)|x|%)?$/.exec(text);
        return found ? Number(found[1].replaceAll(",", "")) * sizes[found[2] ?? ""] : NaN;
      };
      const numeric = rows.every((row) => key(row) === "" || !Number.isNaN(value(key(row))));
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");  // unknown last, either way
        const sign = numeric ? value(x) - value(y) : x < y ? -1 : Number(x > y);
        return down ? -sign : sign;
      };
      table.tBodies[0].append(...rows.sort(order));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}
// Arms of a figure can be hidden.
for (const box of document.querySelectorAll("input[data-hides]")) {
  box.addEventListener("change", () => {
    for (const part of box.closest("figure").querySelectorAll(".series")) {
      if (part.dataset.series === box.dataset.hides) part.classList.toggle("hidden", !box.checked);
    }
  });
}
// Points of a figure show their value.
const tip = document.getElementById("tip");
for (const spot of document.querySelectorAll(".spot")) {
  const show = (event) => {
    tip.textContent = spot.dataset.tip;
    tip.style.display = "block";
    const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
  };
  spot.addEventListener("pointerenter", show);
  spot.addEventListener("pointerdown", show);
  spot.addEventListener("pointerleave", () => { tip.style.display = "none"; });
}
// Long tables can be narrowed down.
for (const field of document.querySelectorAll("input[data-filters]")) {
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of document.getElementById(field.dataset.filters).tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
}
