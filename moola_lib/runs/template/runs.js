// Sort and filter the list of runs. Without this script the page is the whole list, newest first.
(() => {
  try { // the reports' choice of day or night
    if (["dark", "light"].includes(localStorage.moolaTheme)) document.documentElement.dataset.theme = localStorage.moolaTheme;
  } catch { /* a browser may forbid storage to pages opened from disk */ }
  const table = document.querySelector("table.runs");
  if (table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    const find = document.getElementById("find"), by = document.getElementById("by"), count = document.getElementById("count");
    const filters = [...document.querySelectorAll("select[data-column]")];
    const runs = [...body.rows].map((row) => ({
      row,
      keys: [...row.cells].map((cell) => cell.dataset.key),
      text: row.textContent.toLowerCase(),
    }));

    const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);

    // What has no value stands last, whichever way the others are sorted.
    function sort(column, direction) {
      const sign = direction === "ascending" ? 1 : -1;
      runs.sort((a, b) => {
        const [x, y] = [a.keys[column], b.keys[column]];
        return x && y ? sign * compare(x, y) : (x ? 0 : 1) - (y ? 0 : 1);
      });
      body.append(...runs.map((run) => run.row));
      heads.forEach((head, k) => (k === column ? head.setAttribute("aria-sort", direction) : head.removeAttribute("aria-sort")));
      by.value = column;
    }

    function filter() {
      const words = find.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const { row, text } of runs) {
        const fits = words.every((word) => text.includes(word)) && filters.every((each) => !each.value || row.cells[each.dataset.column].firstChild.data === each.value);
        row.hidden = !fits;
        shown += fits;
      }
      const all = `${runs.length.toLocaleString("en")} run${runs.length === 1 ? "" : "s"}`;
      count.textContent = shown === runs.length ? all : `${shown.toLocaleString("en")} of ${all}`;
    }

    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = column === 1 ? "descending" : "ascending";
      sort(column, before ? (before === "ascending" ? "descending" : "ascending") : first);
    }));
    by.addEventListener("change", () => sort(Number(by.value), by.value === "0" ? "ascending" : "descending"));
    for (const each of [find, ...filters]) each.addEventListener("input", filter);
    document.querySelector(".filters").hidden = false;
    filter(); // a browser may have kept what was typed
  }
  document.documentElement.dataset.figures = "drawn";
})();
