// The edits of a draft, as moola_lib/labels/drafts.py does them; a test holds the two against each other.
// studio.js follows this text in one module (widgets/studio.py).

const LAST = 104, INNER = [30, 74], UNSURE_BARS = 2;
const EMPTY = { start: null, end: null, label: null, start_low: null, start_high: null, end_low: null, end_high: null };
const NO_DRAFT = { spans: [], active: 0, edge: "start", is_none: false };
const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

const within = (span, edge, at) =>
  clip(at, edge === "end" && span.start !== null ? span.start : 0, edge === "start" && span.end !== null ? span.end : LAST);

function trim(span) {
  const trimmed = { ...span };
  if (span.start_high !== null && span.end !== null) trimmed.start_high = Math.min(span.start_high, span.end);
  if (span.end_low !== null && span.start !== null) trimmed.end_low = Math.max(span.end_low, span.start);
  return trimmed;
}

function put(span, edge, at) {
  const other = edge === "start" ? "end" : "start";
  const moved = { ...span, [edge]: at, [`${edge}_low`]: null, [`${edge}_high`]: null };
  const isPassed = moved[other] !== null && (edge === "start" ? moved.end < at : moved.start > at);
  return trim(isPassed ? { ...moved, [other]: at, [`${other}_low`]: null, [`${other}_high`]: null } : moved);
}

function change(draft, index, edge, how) {
  const spans = draft.spans.length ? [...draft.spans] : [EMPTY];
  const active = Math.min(index ?? draft.active, spans.length - 1);
  spans[active] = how(spans[active]);
  return { spans, active, edge, is_none: false };
}

const hasEdge = (draft) => draft.spans.length > 0 && draft.spans[draft.active][draft.edge] !== null;
const bar = (at) => clip(at, 0, LAST);

export const edits = {
  start: (draft, { at, index }) => change(draft, index, "start", (span) => put(span, "start", bar(at))),
  end: (draft, { at, index }) => change(draft, index, "end", (span) => put(span, "end", bar(at))),
  span: (draft, { start, end, index }) => {
    const [low, high] = [bar(start), bar(end)].sort((a, b) => a - b);
    return change(draft, index, "end", (span) => put(put(span, "start", low), "end", high));
  },
  label: (draft, { label }) => change(draft, null, draft.edge, (span) => ({ ...span, label })),
  nudge: (draft, { by }) => {
    if (!hasEdge(draft)) return draft;
    const edge = draft.edge, low = `${edge}_low`, high = `${edge}_high`;
    return change(draft, null, edge, (span) => {
      const at = within(span, edge, span[edge] + by), moved = { ...span, [edge]: at };
      if (span[low] === null) return trim(moved);
      return trim({ ...moved, [low]: Math.min(span[low], at), [high]: Math.max(span[high], at) });
    });
  },
  unsure: (draft, { at }) => {
    if (!hasEdge(draft)) return draft;
    const edge = draft.edge;
    return change(draft, null, edge, (span) => {
      const here = span[edge], there = within(span, edge, bar(at));
      let low = span[`${edge}_low`], high = span[`${edge}_high`];
      if (there < here) [low, high] = [there, high ?? here];
      else if (there > here) [low, high] = [low ?? here, there];
      else if (low === null) [low, high] = [within(span, edge, here - UNSURE_BARS), within(span, edge, here + UNSURE_BARS)];
      else low = high = null;
      return { ...span, [`${edge}_low`]: low, [`${edge}_high`]: high };
    });
  },
  none: (draft) => ({ ...NO_DRAFT, is_none: !draft.is_none }),
  edge: (draft) => ({ ...draft, edge: draft.edge === "start" ? "end" : "start" }),
  add: (draft) => {
    const empty = draft.spans.findIndex((span) => same(span, EMPTY));
    const spans = empty < 0 ? [...draft.spans, EMPTY] : draft.spans;
    return { spans, active: empty < 0 ? spans.length - 1 : empty, edge: "start", is_none: false };
  },
  choose: (draft, { index }) =>
    draft.spans.length ? { ...draft, active: (index ?? draft.active + 1) % draft.spans.length } : draft,
  remove: (draft) => {
    const spans = draft.spans.filter((_, k) => k !== draft.active);
    return { ...NO_DRAFT, spans, active: Math.max(Math.min(draft.active, spans.length - 1), 0) };
  },
};

function isComplete(draft) {
  const spans = [...draft.spans].sort((a, b) => a.start - b.start);
  const isWhole = spans.every((span) => span.start !== null && span.end !== null && span.label !== null);
  return draft.is_none || (spans.length > 0 && isWhole && spans.every((span, k) => !k || span.start > spans[k - 1].end));
}
