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
