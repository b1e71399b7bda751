// The page's controls: by day or night, code shown or folded, tables sorted and scrolled.
(() => {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const announce = () => dispatchEvent(new Event("themechange"));

  function controlTheme(button) {
    if (!button) return;
    const show = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    try { // a browser may forbid storage to pages opened from disk
      if (["dark", "light"].includes(localStorage.moolaTheme)) root.dataset.theme = localStorage.moolaTheme;
    } catch { /* the system decides */ }
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.moolaTheme = root.dataset.theme; } catch { /* for this visit only */ }
      show();
      announce();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { show(); announce(); });
  }

  function controlCode(button) {
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", isShown);
      for (const fold of document.querySelectorAll("details.code")) fold.open = isShown;
      const main = document.querySelector("main");
      if (isShown) main.dataset.code = "shown"; // printed as well
      else delete main.dataset.code;
    });
  }

  // Numbers by value (an interval by its lower end), all else as people sort names and dates; nothing goes last.
  const NUMBER = /^[-+]?[\d,]*\.?\d+(e[-+]?\d+)?\s*(%|[a-zµσ]+)?( to .*)?$/i;
  const isAbsent = (text) => ["", "none", "nan", "nat", "–", "not recorded"].includes(text.toLowerCase());
  function textOf(cell) {
    return cell.dataset.verdict ?? cell.textContent.trim().replace(/^−/, "-");
  }

  function sortRows(body, column, direction) {
    const rows = [...body.rows].map((row) => ({ row, text: textOf(row.cells[column]) }));
    const given = rows.filter(({ text }) => !isAbsent(text));
    const areNumbers = given.every(({ text }) => NUMBER.test(text));
    const number = ({ text }) => parseFloat(text.replaceAll(",", ""));
    given.sort((a, b) => direction * (areNumbers ? number(a) - number(b)
      : a.text.localeCompare(b.text, undefined, { numeric: true })));
    body.append(...given.map(({ row }) => row), ...rows.filter(({ text }) => isAbsent(text)).map(({ row }) => row));
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    if (table.tHead?.rows.length !== 1 || !(body?.rows.length > 2) || table.querySelector("[rowspan], [colspan]")) return;
    const asGiven = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    for (const [column, head] of heads.entries()) {
      if (!head.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next === "none") return body.append(...asGiven);
        head.setAttribute("aria-sort", next);
        sortRows(body, column, next === "ascending" ? 1 : -1);
      });
    }
  }

  // What is larger than its place can be scrolled by keyboard, and says what it is.
  function markScrolled(box) {
    const isWide = box.scrollWidth > box.clientWidth + 1;
    const isTable = box.matches(".scroll");
    if (isTable) box.classList.toggle("wide", isWide);
    if (!isWide && box.scrollHeight <= box.clientHeight + 1) {
      return ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
    }
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    const kind = isTable ? "Wide table" : box.closest(".code") ? "Code" : "Printed output";
    box.setAttribute("aria-label", [kind, headingOf(box)].filter(Boolean).join(": "));
  }

  function headingOf(element) {
    let above = element.closest("section") ?? element;
    while (above && !above.matches("h2") && !above.querySelector("h2")) above = above.previousElementSibling;
    const heading = above?.matches("h2") ? above : above?.querySelector("h2");
    return heading?.textContent.replace("¶", "").trim();
  }

  controlTheme(document.getElementById("theme"));
  controlCode(document.getElementById("show-code"));
  document.querySelectorAll("main table").forEach(makeSortable);
  const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => markScrolled(target)));
  for (const box of document.querySelectorAll(".scroll, main pre")) watch.observe(box);

  let themeBefore; // paper is white
  addEventListener("beforeprint", () => { themeBefore = root.dataset.theme; root.dataset.theme = "light"; announce(); });
  addEventListener("afterprint", () => {
    if (themeBefore) root.dataset.theme = themeBefore;
    else delete root.dataset.theme;
    announce();
  });
})();
