"use strict";

// Tables: a header sorts its column up, then down, then puts the lines back as they were.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

function compared(one, other) {
  const [a, b] = [one.dataset.value, other.dataset.value];
  if (a !== undefined && b !== undefined) return Number(a) - Number(b) || 0; // infinity minus itself is no number
  return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
}

function sort(body, given, column, order) {
  const numbers = given.some((line) => line.cells[column].dataset.value !== undefined);
  const missing = (line) => numbers && line.cells[column].dataset.value === undefined;
  const sign = order === "descending" ? -1 : 1;
  const sorted = given.toSorted((one, other) =>
    missing(one) - missing(other) || sign * compared(one.cells[column], other.cells[column]));
  body.append(...(order === "none" ? given : sorted));
}

for (const table of document.querySelectorAll("table")) {
  const [body] = table.tBodies;
  const given = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  for (const [column, header] of headers.entries()) {
    header.firstElementChild.addEventListener("click", () => {
      const order = NEXT[header.ariaSort];
      for (const other of headers) other.ariaSort = "none";
      header.ariaSort = order;
      sort(body, given, column, order);
    });
  }
}

// Marks of a chart: the one that has the focus is told below, else the one nearest to the pointer. Tab reaches a chart,
// arrows its marks, Enter what is told, Escape the mark again.
const REACH = 24; // pixels
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

for (const choice of document.querySelectorAll(".choice")) {
  const told = choice.querySelector(".chosen");
  const all = [...choice.querySelectorAll(".scatter a")];
  const isHeld = () => document.activeElement.closest(".scatter, .chosen")?.parentElement.closest(".choice") === choice;
  let shown = null;

  function show(mark) {
    if (mark === shown) return;
    shown = mark;
    const name = mark.getAttribute("href");
    for (const other of all) other.classList.toggle("shown", other.getAttribute("href") === name);
    told.replaceChildren(...document.getElementById(name.slice(1)).cloneNode(true).childNodes);
    told.hidden = false;
  }

  told.addEventListener("keydown", (event) => { if (event.key === "Escape") shown.focus(); });

  for (const chart of choice.querySelectorAll(".scatter svg")) {
    const marks = [...chart.querySelectorAll("a")];
    const reach = (mark) => marks.forEach((other) => other.setAttribute("tabindex", other === mark ? 0 : -1));
    reach(marks[0]);
    function nearest(event) {
      const distances = marks.map((mark) => {
        const { x, y, width, height } = mark.querySelector(".target").getBoundingClientRect();
        return Math.hypot(event.clientX - x - width / 2, event.clientY - y - height / 2);
      });
      const least = Math.min(...distances);
      return least < REACH ? marks[distances.indexOf(least)] : null;
    }
    chart.addEventListener("pointermove", (event) => {
      const mark = isHeld() ? null : nearest(event);
      if (mark) show(mark);
    });
    chart.addEventListener("click", (event) => {
      event.preventDefault();
      if (event.detail === 0) told.querySelector("pre").focus(); // by a key
      else nearest(event)?.focus();
    });
    for (const [place, mark] of marks.entries()) {
      mark.addEventListener("focus", () => { reach(mark); show(mark); });
      mark.addEventListener("keydown", (event) => {
        if (!(event.key in STEPS) || event.altKey || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        marks[Math.min(Math.max(place + STEPS[event.key], 0), marks.length - 1)].focus();
      });
    }
  }
}

// Samples: a button shows its images large.
const dialog = document.getElementById("enlarged");

for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    document.getElementById("caption").textContent = button.dataset.caption;
    const images = [...button.querySelectorAll("img")].map((image) => image.cloneNode());
    document.getElementById("images").replaceChildren(...images);
    dialog.showModal();
  });
}

dialog.querySelector("button").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
