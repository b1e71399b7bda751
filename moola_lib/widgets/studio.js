// The label studio's view: one canvas of candles, keys, mouse and touch. Every edit (studio_drafts.js) is drawn at once and
// sent to Python (moola_lib/labels), which writes it to the journal and answers with what holds: Python is right.

// ---- keys and buttons ---------------------------------------------------------------------------------------

// Key, name of the button, title, group; keys without a name have no button.
const COMMANDS = [
  ["s", "Start", "set the start at the cursor", 0], ["e", "End", "set the end at the cursor", 0],
  ["?", "Unsure", "the active edge may as well be as far as the cursor; on the edge itself: 2 bars to both sides, or sure again", 0],
  ["t", "Other edge", "nudge the other edge", 0],
  ["1", "Consolidation", "consolidation: the market rested before", 1],
  ["2", "Retracement", "retracement: the market moved the other way before", 1],
  ["x", "None", "there is no expansion in this window", 1],
  ["m", "Add", "mark another expansion in this window", 2], ["n", "Next one", "go to the next expansion", 2],
  ["delete", "Remove", "take this expansion away", 2],
  ["u", "Undo", "undo, without limit", 3], ["r", "Redo", "redo", 3],
  ["p", "Take", "take what is proposed, where it may be seen", 3],
  ["backspace", "Back", "go to the window before", 4], ["k", "Skip", "leave this window for another day", 4],
  ["enter", "Save, next", "save and go to the next window", 4],
  ["b", null, "blind mode on or off"], ["y", null, "bar replay on or off: hides the future; → shows the next bar"],
  ["h", null, "these keys"],
];
const SHOWN = { delete: "Del", backspace: "⌫", enter: "⏎" };
const MOVES = [["← →", "move the cursor by a bar (Page ↑ ↓: by ten; Home, End: the inner bars)"], ["Shift ← →", "nudge the active edge by a bar"]];
const MOUSE = "Mouse or finger: drag across bars to mark them, drag an edge to move it; S and E use the bar under the mouse.";

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

function render({ model, el }) {
  const me = Math.random().toString(36).slice(2);
  let sent = 0, pending = [], held = null; // keys pressed while the next window is not known are held
  let cursor = INNER[0], drag = null;
  let here = null; // what is drawn: token, window, draft, past, future, seen, others, is_saved

  const title = make("div", { class: "title" }), pace = make("div", { class: "pace" });
  const canvas = make("canvas", { tabindex: "0", role: "img" });
  const readout = make("div", { class: "readout" }), spoken = make("div", { class: "spoken", "aria-live": "polite" });
  const message = make("div", { class: "message", role: "status" });
  const buttons = {}, groups = [];
  for (const [key, name, what, group] of COMMANDS) {
    if (!name) continue;
    groups[group] ??= make("div", { class: "group", role: "group" });
    buttons[key] = make("button", { type: "button", title: what }, `${name} `, make("kbd", { "aria-hidden": "true" }, SHOWN[key] ?? key.toUpperCase()));
    buttons[key].addEventListener("click", (event) => press(key, event));
    groups[group].append(buttons[key]);
  }
  ["edges", "state before", "expansions", "history", "windows"].forEach((name, k) => groups[k].setAttribute("aria-label", name));
  const toggle = (name, key, what) => {
    const button = make("button", { type: "button", title: what }, `${name} `, make("kbd", { "aria-hidden": "true" }, key.toUpperCase()));
    button.addEventListener("click", (event) => press(key, event));
    return button;
  };
  const blind = toggle("Blind", "b", "hide what others say until you have saved");
  const replay = toggle("Replay", "y", "hide the bars to come; → shows the next one");
  const question = make("button", { type: "button", title: "all keys (H)", "aria-label": "help", "aria-expanded": "false" }, "?");
  question.addEventListener("click", (event) => press("h", event));
  const choose = (action, values) => {
    const select = make("select", {}, ...values.map(([value, text]) => make("option", { value }, text)));
    select.addEventListener("change", () => { send(action, { value: select.value }); canvas.focus(); });
    return select;
  };
  const order = choose("order", [["uncertain", "most uncertain"], ["random", "at random"], ["time", "session by session"], ["disagreements", "disagreements"], ["flagged", "worth a second look"]]);
  const hours = choose("hours", [["all", "all hours"], ["regular", "regular hours"], ["overnight", "overnight"]]);
  const help = make("div", { class: "help", role: "dialog", "aria-label": "Keys", hidden: "" });
  const rows = [...MOVES, ...COMMANDS.map(([key, , what]) => [SHOWN[key] ?? key.toUpperCase(), what])];
  const list = rows.map(([key, what]) => make("li", {}, make("kbd", {}, key), make("span", {}, what)));
  help.append(make("ul", {}, ...list), make("p", {}, `${MOUSE} Esc or H closes this.`));
  const setup = make("div", { class: "bar" }, make("label", {}, "Queue ", order), make("label", {}, "Hours ", hours), blind, replay, question);
  const view = make("div", { class: "view" }, canvas, help);
  // Lab would take X for "cut the cell" and Enter for "edit it"
  const root = make("section", { class: "moola-studio", "aria-label": "Label studio", "data-lm-suppress-shortcuts": "true" },
    make("div", { class: "bar" }, title, pace), setup, view, readout, make("div", { class: "bar tools" }, ...groups), message, spoken);
  el.append(root);

  // ---- talking with Python ----------------------------------------------------------------------------------

  function send(action, args = {}) {
    pending.push({ n: ++sent, at: performance.now() });
    try {
      model.send({ view: me, n: sent, token: here?.token ?? null, action, arguments: args });
    } catch {
      say("The kernel is gone: what you do now is not saved. Restart it and run the cell again.", true);
    }
  }

  function adopt() {
    const state = model.get("state");
    if (state.view === me) {
      for (const { n, at } of pending) if (n <= state.n) measure("studio action to disk", at);
      pending = pending.filter(({ n }) => n > state.n);
    }
    show(state);
    if (pending.length) return; // answers to what was done meanwhile are on their way
    const isSame = here && here.token === state.token && same(here.draft, state.draft);
    const isNew = !here || here.token !== state.token;
    here = { ...state, past: isSame ? here.past : [], future: isSame ? here.future : [] };
    if (isNew) goToStart();
    draw();
    const waiting = held ?? [];
    held = null;
    while (waiting.length && !held) press(...waiting.shift());
    if (held) held.push(...waiting);
  }

  function leave(action) { // for a window that only Python knows
    send(action);
    held = [];
  }

  function goToStart() {
    const first = here?.draft?.spans[0]?.start;
    cursor = first ?? (here?.is_replay ? clip(here.seen, 0, LAST) : INNER[0]);
  }

  function say(text, isAlarm = false) {
    message.textContent = text;
    message.classList.toggle("alarm", isAlarm);
  }

  function show(state) {
    const { n_saved, n_done, n_total, per_hour, minutes_left } = state.progress;
    const left = minutes_left < 90 ? `${minutes_left} min` : `${(minutes_left / 60).toFixed(1)} h`;
    const speed = per_hour === null ? "" : ` · ${per_hour} an hour · ${left} left`;
    pace.textContent = `${n_done} of ${n_total} labelled · ${n_saved} now${speed}`;
    blind.setAttribute("aria-pressed", state.is_blind);
    replay.setAttribute("aria-pressed", state.is_replay);
    [order.value, hours.value] = [state.order, state.hours];
    order.disabled = hours.disabled = state.is_fixed;
    order.lastChild.disabled = !state.has_flagged;
    say(state.message || state.remark, state.is_error);
  }

  const watch = setInterval(() => {
    if (pending.length && performance.now() - pending[0].at > 2000)
      say(`Waiting for the kernel: the last ${pending.length === 1 ? "action is" : `${pending.length} actions are`} not on the disk yet.`, true);
  }, 500);

  // ---- what a key does --------------------------------------------------------------------------------------

  function apply(action, args = {}) {
    if (!here?.window) return send(action, args);
    const draft = edits[action](here.draft, args);
    send(action, args);
    if (same(draft, here.draft)) return;
    here.past.push(here.draft);
    here = { ...here, draft, future: [] };
  }

  function step(from, to, action) {
    if (here?.[from]?.length) {
      here[to].push(here.draft);
      here = { ...here, draft: here[from].pop() };
    }
    send(action);
  }

  function save() {
    const isReady = here?.window && isComplete(here.draft), next = model.get("state").next;
    if (!isReady || !next || next.token === here.token) return leave("save");
    send("save");
    here = { ...here, ...next, past: [], future: [], others: [] };
    goToStart();
  }

  function move(by) {
    const last = here?.is_replay && here.window ? here.seen : LAST;
    if (here?.is_replay && cursor + by > last && last < LAST) {
      here.seen = Math.min(here.seen + 1, LAST);
      send("step");
    }
    cursor = clip(cursor + by, 0, here?.is_replay ? here.seen : LAST);
  }

  const keys = {
    s: () => apply("start", { at: cursor }), e: () => apply("end", { at: cursor }), "?": () => apply("unsure", { at: cursor }),
    1: () => apply("label", { label: "consolidation" }), 2: () => apply("label", { label: "retracement" }),
    x: () => apply("none"), t: () => apply("edge"), m: () => apply("add"), "+": () => apply("add"),
    n: () => apply("choose"), delete: () => apply("remove"),
    u: () => step("past", "future", "undo"), r: () => step("future", "past", "redo"), p: () => send("take"),
    backspace: () => leave("back"), k: () => leave("skip"), enter: save,
    b: () => send("blind", { is_on: !here.is_blind }), y: () => send("replay", { is_on: !here.is_replay }),
    h: () => openHelp(help.hidden), escape: () => openHelp(false),
    arrowleft: () => move(-1), arrowright: () => move(1), pageup: () => move(-10), pagedown: () => move(10),
    home: () => move(INNER[0] - cursor), end: () => move(INNER[1] - cursor),
    "shift+arrowleft": () => apply("nudge", { by: -1 }), "shift+arrowright": () => apply("nudge", { by: 1 }),
  };

  function openHelp(isOpen) {
    help.hidden = !isOpen;
    question.setAttribute("aria-expanded", isOpen);
  }

  function press(key, event) {
    if (held && key !== "h" && key !== "escape") return held.push([key, event]);
    keys[key]();
    draw();
    if (event.type === "click") canvas.focus();
    measure("studio key to redraw", event.timeStamp);
    if (key === "enter") measure("studio save to next", event.timeStamp);
  }

  function measure(name, start) {
    requestAnimationFrame(() => performance.measure(name, { start, end: performance.now() }));
  }

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key.toLowerCase() === "s") event.preventDefault(); // not the browser's "save page": all is saved
      return;
    }
    const onControl = ["BUTTON", "SELECT"].includes(event.target.tagName);
    if (onControl && (event.target.tagName === "SELECT" || ["Enter", " "].includes(event.key))) return;
    const key = (event.shiftKey && event.key.startsWith("Arrow") ? "shift+" : "") + event.key.toLowerCase();
    if (!(key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    press(key, event);
  });

  // ---- mouse and touch --------------------------------------------------------------------------------------

  function barAt(event) {
    const last = here?.is_replay ? here.seen : LAST;
    return clip(Math.floor((event.offsetX - frame.left) / frame.step) + frame.first, 0, last);
  }

  function boundAt(event) { // the bar whose outer bound is nearest: edges are drawn there
    const bound = Math.round((event.offsetX - frame.left) / frame.step) + frame.first;
    return clip(drag.grabbed.edge === "end" ? bound - 1 : bound, 0, here.is_replay ? here.seen : LAST);
  }

  function edgeAt(event) {
    const reach = event.pointerType === "touch" ? 18 : 7;
    let found = null, nearest = reach;
    here?.draft?.spans.forEach((span, index) => ["start", "end"].forEach((edge) => {
      if (span[edge] === null) return;
      const distance = Math.abs(event.offsetX - frame.x(span[edge] + (edge === "end" ? 1 : 0)));
      if (distance <= nearest) [found, nearest] = [{ index, edge }, distance];
    }));
    return found;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!here?.window || held || event.button) return;
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    drag = { from: barAt(event), x: event.offsetX, before: here.draft, grabbed: edgeAt(event), action: null };
    cursor = drag.from;
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!here?.window) return;
    cursor = barAt(event);
    canvas.style.cursor = edgeAt(event) ? "ew-resize" : "crosshair";
    if (drag && (drag.action || Math.abs(event.offsetX - drag.x) > 4)) {
      drag.action = drag.grabbed ? drag.grabbed.edge : "span";
      drag.args = drag.grabbed ? { at: boundAt(event), index: drag.grabbed.index } : { start: drag.from, end: cursor };
      here = { ...here, draft: edits[drag.action](drag.before, drag.args) }; // shown; sent when let go
    }
    draw();
  });
  const letGo = (event) => {
    const done = drag;
    drag = null;
    if (!done?.action) return;
    here = { ...here, draft: done.before };
    if (event.type === "pointerup") apply(done.action, done.args);
    draw();
  };
  canvas.addEventListener("pointerup", letGo);
  canvas.addEventListener("pointercancel", letGo);

  // ---- drawing ----------------------------------------------------------------------------------------------

  let frame = { left: 6, first: 0, step: 1, x: () => 0 };
  const two = (number) => String(number).padStart(2, "0");
  const clock = (minute) => `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;

  function draw() {
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio))
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const style = getComputedStyle(root), ink = (name) => style.getPropertyValue(`--studio-${name}`).trim();
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = `12px ${style.fontFamily}`;
    const bars = here?.window ? model.get("windows")[here.window] : null;
    for (const key in buttons) buttons[key].disabled = !bars && key !== "backspace";
    buttons["1"].setAttribute("aria-pressed", here?.draft?.spans[here.draft.active]?.label === "consolidation");
    buttons["2"].setAttribute("aria-pressed", here?.draft?.spans[here.draft.active]?.label === "retracement");
    buttons.x.setAttribute("aria-pressed", Boolean(here?.draft?.is_none));
    if (!bars) {
      title.textContent = readout.textContent = "";
      canvas.setAttribute("aria-label", "no window");
      g.fillStyle = ink("ink");
      g.textAlign = "center";
      g.fillText(here?.remark ?? "", width / 2, height / 2);
      return;
    }
    const isChanged = here.is_saved && !same(here.draft, here.saved);
    title.textContent = bars.title + (isChanged ? " · changed since it was saved" : here.is_saved ? " · saved" : "");
    const isNarrow = width < 4.5 * bars.close.length; // no room for what was before the window
    const first = isNarrow ? 0 : bars.first, hidden = first - bars.first, n = bars.close.length - hidden, seen = here.is_replay ? here.seen : LAST;
    const left = 6, right = width - 66, top = 36, bottom = height - 24, step = (right - left) / n;
    const x = (at) => left + (at - first) * step;
    frame = { left, first, step, x };
    canvas.dataset.first = first;
    const stop = hidden + seen - first + 1; // candles from `hidden` on and before `stop` are drawn
    const low = Math.min(...bars.low.slice(hidden, stop)), high = Math.max(...bars.high.slice(hidden, stop));
    const air = 0.06 * (high - low) || 1, y = (price) => bottom - ((price - low + air) / (high - low + 2 * air)) * (bottom - top);

    g.fillStyle = ink("inner");
    g.fillRect(x(INNER[0]), top, x(INNER[1] + 1) - x(INNER[0]), bottom - top);
    g.fillStyle = ink("before");
    g.fillRect(left, top, x(0) - left, bottom - top);
    g.textBaseline = "alphabetic";
    g.textAlign = "center";
    g.fillStyle = ink("quiet");
    const parts = [["before", first, 0], ["past", 0, INNER[0]], ["the inner 45 bars", INNER[0], INNER[1] + 1], ["future", INNER[1] + 1, LAST + 1]];
    for (const [text, from, to] of parts)
      if (x(to) - x(from) > g.measureText(text).width + 6) g.fillText(text, (x(from) + x(to)) / 2, 12);
    drawAxes(g, ink, bars, { x, y, low: low - air, high: high + air, left, right, top, bottom, step });
    here.draft.spans.forEach((span, k) => drawSpan(g, ink, span, k === here.draft.active, here.draft.edge, { x, top, bottom }));
    (here.others ?? []).forEach((other, k) => drawOther(g, ink, other, k, { x, top, bottom, left, right }));
    drawCandles(g, ink, bars, { x, y, step, hidden, stop });
    if (here.is_replay && seen < LAST) {
      g.fillStyle = ink("hidden");
      g.fillRect(x(seen + 1), top, x(LAST + 1) - x(seen + 1), bottom - top);
      g.fillStyle = ink("ink");
      if (x(LAST + 1) - x(seen + 1) > 150) g.fillText("→ shows the next bar", (x(seen + 1) + x(LAST + 1)) / 2, (top + bottom) / 2);
    }
    if (here.draft.is_none) {
      g.font = `600 15px ${style.fontFamily}`;
      g.fillStyle = ink("ink");
      g.fillText("no expansion in this window", (x(0) + x(LAST + 1)) / 2, top + 22);
    }
    cursor = Math.min(cursor, seen);
    g.strokeStyle = ink("ink");
    g.setLineDash([2, 3]);
    line(g, x(cursor + 0.5), top, x(cursor + 0.5), bottom);
    g.setLineDash([]);
    const k = cursor - bars.first, price = (value) => value.toFixed(2);
    readout.textContent = `bar ${cursor} · ${clock(bars.minute[k])} · open ${price(bars.open[k])} high ${price(bars.high[k])} low ${price(bars.low[k])} close ${price(bars.close[k])}`;
    const told = describe();
    canvas.setAttribute("aria-label", `Candles of ${bars.title}. ${told}. Cursor on bar ${cursor}.`);
    if (spoken.textContent !== told) spoken.textContent = told;
  }

  function describe() {
    const edge = (span, name) => {
      if (span[name] === null) return `${name} not set`;
      const [low, high] = [span[`${name}_low`], span[`${name}_high`]];
      return `${name} ${span[name]}${low === null ? "" : ` (${low} to ${high})`}`;
    };
    if (here.draft.is_none) return "No expansion";
    return here.draft.spans.map((span) => `${span.label ?? "state not set"}, ${edge(span, "start")}, ${edge(span, "end")}`).join("; ") || "Nothing marked";
  }

  const write = (g, ink, text, x, y) => { // readable over lines and candles
    g.lineWidth = 3;
    g.strokeStyle = ink("ground");
    g.strokeText(text, x, y);
    g.lineWidth = 1;
    g.fillText(text, x, y);
  };
  const line = (g, x0, y0, x1, y1) => { g.beginPath(); g.moveTo(x0, y0); g.lineTo(x1, y1); g.stroke(); };

  function drawAxes(g, ink, bars, { x, y, low, high, left, right, top, bottom, step }) {
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const jump = Math.max([1, 2, 2.5, 5, 10].find((each) => each * power >= rough) * power, 0.25);
    g.lineWidth = 1;
    g.textAlign = "left";
    g.textBaseline = "middle";
    for (let price = Math.ceil(low / jump) * jump; price < high; price += jump) {
      g.strokeStyle = ink("grid");
      line(g, left, Math.round(y(price)) + 0.5, right, Math.round(y(price)) + 0.5);
      g.fillStyle = ink("quiet");
      g.fillText(price.toFixed(2), right + 6, y(price));
    }
    g.textAlign = "center";
    g.textBaseline = "alphabetic";
    const every = [5, 15, 30, 60].find((minutes) => minutes * step > 52) ?? 60;
    bars.minute.forEach((minute, k) => {
      const at = x(bars.first + k + 0.5);
      if (minute % every || at < left) return;
      g.strokeStyle = ink("quiet");
      line(g, at, bottom, at, bottom + 4);
      g.fillText(clock(minute), clip(at, left + 16, right - 16), bottom + 17);
    });
    for (const at of [0, INNER[0], 45, 60, INNER[1], LAST]) g.fillText(at, x(at + 0.5), 28);
  }

  function drawCandles(g, ink, bars, { x, y, step, hidden, stop }) {
    const body = Math.max(Math.floor(step * 0.7), 1);
    for (let k = hidden; k < stop; k++) {
      const isUp = bars.close[k] >= bars.open[k], middle = x(bars.first + k + 0.5);
      g.globalAlpha = bars.first + k < 0 ? 0.55 : 1;
      g.strokeStyle = g.fillStyle = ink(isUp ? "up" : "down");
      line(g, middle, y(bars.high[k]), middle, y(bars.low[k]));
      const upper = y(Math.max(bars.open[k], bars.close[k])), tall = Math.max(y(Math.min(bars.open[k], bars.close[k])) - upper, 1);
      if (isUp && body > 2) { // hollow: rising bars are told by their form, too
        g.fillStyle = ink("ground");
        g.fillRect(middle - body / 2, upper, body, tall);
        g.strokeRect(middle - body / 2, upper, body, tall);
      } else g.fillRect(middle - body / 2, upper, body, tall);
    }
    g.globalAlpha = 1;
  }

  function drawSpan(g, ink, span, isActive, activeEdge, { x, top, bottom }) {
    const [from, to] = [span.start ?? span.end, span.end ?? span.start];
    if (from === null) return;
    g.fillStyle = ink("span");
    if (span.start !== null && span.end !== null) g.fillRect(x(from), top, x(to + 1) - x(from), bottom - top);
    for (const edge of ["start", "end"]) {
      const [low, high] = [span[`${edge}_low`], span[`${edge}_high`]];
      g.strokeStyle = ink("edge");
      if (low !== null) { // a band as high as the span, paler, between dashes
        g.fillStyle = ink("soft");
        g.fillRect(x(low), top, x(high + 1) - x(low), bottom - top);
        g.setLineDash([4, 4]);
        for (const at of [x(low), x(high + 1)]) line(g, at, top, at, bottom);
        g.setLineDash([]);
      }
      if (span[edge] === null) continue;
      g.lineWidth = isActive && edge === activeEdge ? 3 : 1.5;
      const at = x(span[edge] + (edge === "end" ? 1 : 0));
      line(g, at, top, at, bottom);
      g.lineWidth = 1;
    }
    g.fillStyle = ink("edge");
    g.font = `${isActive ? "600 " : ""}${g.font.replace(/^600 /, "")}`;
    write(g, ink, span.label ?? "state?", (x(from) + x(to + 1)) / 2, top + 14);
    g.font = g.font.replace(/^600 /, "");
  }

  function drawOther(g, ink, other, k, { x, bottom, left }) {
    const level = bottom - 8 - 18 * k;
    g.strokeStyle = g.fillStyle = ink("other");
    g.textAlign = "left";
    if (other.start === null) write(g, ink, `${other.by}: no expansion`, left + 4, level);
    else {
      g.lineWidth = 2;
      g.setLineDash([6, 3]);
      g.strokeRect(x(other.start), level - 10, x(other.end + 1) - x(other.start), 12);
      g.setLineDash([]);
      g.lineWidth = 1;
      write(g, ink, `${other.by}: ${other.label}`, x(other.end + 1) + 5, level);
    }
    g.textAlign = "center";
  }

  model.on("change:state", adopt);
  const restyle = () => [0, 100, 600].forEach((wait) => setTimeout(draw, wait)); // a theme's own colours come a little later
  const sizes = new ResizeObserver(draw), themes = new MutationObserver(restyle);
  sizes.observe(canvas);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  adopt();
  return () => {
    model.off("change:state", adopt);
    clearInterval(watch);
    sizes.disconnect();
    themes.disconnect();
  };
}

export default { render };
