"use strict";
// Sorting, tips and printing; without this script the page says the same, less comfortably.

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[table.tBodies.length - 1]; // the base and the noise floor stay on top
    const key = (row) => row.cells[column].dataset.v;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // unknown goes last
      const sign = descending ? -1 : 1;
      return sign * (column === 0 ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y));
    };
    body.append(...[...body.rows].sort(order));
  }));
}

const tip = document.getElementById("tip");
let target = null;
const place = () => {
  tip.hidden = !target;
  if (!target) return;
  const box = target.getBoundingClientRect();
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const left = box.left + box.width / 2 - width / 2;
  const above = box.top - height - 8;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8))}px`;
  tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
};
const show = (element) => {
  target = element;
  tip.textContent = target ? target.dataset.tip : "";
  place();
};
for (const name of ["pointerover", "pointerdown", "focusin"]) {
  document.addEventListener(name, (event) => show(event.target.closest("[data-tip]")));
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });
document.addEventListener("scroll", place, { capture: true, passive: true });

// On paper nothing can be opened.
const closed = new Set();
addEventListener("beforeprint", () => {
  show(null);
  for (const details of document.querySelectorAll("details[data-print]:not([open])")) {
    closed.add(details);
    details.open = true;
  }
});
addEventListener("afterprint", () => { closed.forEach((details) => { details.open = false; }); closed.clear(); });
