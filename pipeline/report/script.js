"use strict";
// A table that can be searched and sorted; without scripts it is a plain table.
const table = document.getElementById("classes");
const search = document.getElementById("search");
const count = document.getElementById("count");
const body = table.tBodies[0];
const rows = Array.from(body.rows);

function filter() {
  const wanted = search.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    shown += row.hidden ? 0 : 1;
  }
  count.textContent = shown + " of " + rows.length + " classes";
}

function sort(header, column) {
  const descending = header.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const sign = descending ? -1 : 1;
  const key = (row) => row.cells[column].dataset.value;
  const compare = column === 0
    ? (a, b) => -sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent)
    : (a, b) => sign * (Number(key(a)) - Number(key(b)));
  body.append(...rows.sort(compare));
}

search.closest(".search").hidden = false;
search.addEventListener("input", filter);
Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  button.addEventListener("click", () => sort(header, column));
  header.append(button);
});
filter();
