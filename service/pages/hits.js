"use strict";

const SNIPPET_CHARS = 320;
const FILTER_CHARS = 60;
const FIELD_CHARS = 256;
const RIGHT_TO_LEFT = /^[^\p{L}]*[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function pressable(content, pressed, properties = {}) {
  const button = make("button", { type: "button", ...properties }, ...[content].flat());
  button.addEventListener("click", pressed);
  return button;
}

function showHit(hit, query, narrow) {
  const marks = hit.explanation ? heat(hit.explanation) : (hit.highlights || []).map((range) => ({ ...range, word: true, heat: 1 }));
  const of = (field) => marks.filter((mark) => mark.field === field).sort((a, b) => a.start - b.start || b.end - a.end);
  // The service counts code points, JavaScript UTF-16 units: hence arrays of code points.
  const title = Array.from(hit.title || hit.id);
  const item = make("li", {},
    make("div", { className: "head" },
      paint(make("h3", { dir: "auto" }), title, hit.title ? of("title") : [], 0, title.length),
      make("span", { className: "score", textContent: `score ${hit.score.toFixed(3)}` })),
    ...showText(Array.from(hit.text), of("text"), hit.title || hit.id));
  if (hit.explanation) item.append(showPieces(hit.explanation, query, item));
  item.append(showFacts(hit, narrow));
  return item;
}

function showText(points, marks, name) {
  const shown = make("p", { dir: "auto" });
  const [from, to] = snippet(points, marks);
  if (from === 0 && to === points.length) return [paint(shown, points, marks, from, to)];
  const more = pressable("Show all", () => draw(more.ariaExpanded !== "true"), { className: "quiet" });
  function draw(whole) {
    shown.replaceChildren();
    shown.className = whole ? "" : "snippet";
    if (!whole && from > 0) shown.append("… ");
    paint(shown, points, marks, ...(whole ? [0, points.length] : [from, to]));
    if (!whole && to < points.length) shown.append(" …");
    more.textContent = whole ? "Show less" : "Show all";
    more.ariaLabel = `${more.textContent} of ${name}`;
    more.ariaExpanded = String(whole);
  }
  draw(false);
  return [shown, more];
}

// The piece of a long text that holds the most of what matched, cut between words.
function snippet(points, marks) {
  if (points.length <= SNIPPET_CHARS * 1.25) return [0, points.length];
  const weight = (from) => marks.filter((mark) => mark.start >= from && mark.end <= from + SNIPPET_CHARS)
    .reduce((sum, mark) => sum + mark.heat * (mark.end - mark.start), 0);
  let from = 0;
  for (const mark of marks) {
    const start = Math.max(0, Math.min(mark.start - 40, points.length - SNIPPET_CHARS));
    if (weight(start) > weight(from)) from = start;
  }
  const spaceAfter = (at) => points.findIndex((point, index) => index >= at && index < at + 30 && /\s/u.test(point));
  if (from > 0) from = Math.max(from, spaceAfter(from) + 1);
  const end = from + SNIPPET_CHARS;
  const space = spaceAfter(end);
  return [from, end >= points.length ? points.length : Math.max(end, space)];
}

function paint(node, points, marks, from, to) {
  let at = from;
  for (const mark of marks) {
    const start = Math.max(mark.start, at);
    const end = Math.min(mark.end, to);
    if (end <= start) continue;
    node.append(points.slice(at, start).join(""));
    const painted = make("mark", { textContent: points.slice(start, end).join("") });
    if (mark.word) painted.className = "word";
    else {
      painted.style.setProperty("--heat", mark.heat.toFixed(3));
      painted.dataset.pieces = mark.pieces.join(" ");
      painted.title = `${mark.from.join(", ")}: ${mark.score.toFixed(2)}`;
    }
    node.append(painted);
    at = end;
  }
  node.append(points.slice(at, to).join(""));
  return node;
}

function heat(explanation) {
  const spans = new Map();
  explanation.tokens.forEach((token, number) => {
    for (const met of [token.passage, ...token.also]) {
      if (!met?.text.trim()) continue;
      const key = `${met.field}:${met.start}:${met.end}`;
      const span = spans.get(key) || { ...met, score: 0, from: [], pieces: [] };
      span.score = Math.max(span.score, token.score);
      span.from.push(token.query.text.trim());
      span.pieces.push(number);
      spans.set(key, span);
    }
  });
  return [...spans.values()].map((span) => ({ ...span, heat: warmth(span.score, explanation) }));
}

// Squared: even pieces that have nothing in common have a cosine near a half.
function warmth(score, explanation) {
  const best = Math.max(1e-6, ...explanation.tokens.map((token) => token.score));
  return (Math.max(0, score) / best) ** 2;
}

function showPieces(explanation, query, item) {
  const pieces = explanation.tokens.map((token, number) => {
    const asked = token.query.text.trim();
    const met = token.passage?.text.trim();
    const piece = make("button", {
      type: "button", ariaPressed: "false",
      ariaLabel: `${asked || "a space"} met ${met || "no text"}, ${token.score.toFixed(2)}`,
    }, make("bdi", { textContent: asked || "␣", lang: "" }), make("bdi", { className: "met", textContent: met || "–" }),
      make("small", { textContent: token.score.toFixed(2) }));
    piece.style.setProperty("--heat", warmth(token.score, explanation).toFixed(3));
    const point = (on) => {
      for (const mark of item.querySelectorAll("mark")) {
        if (mark.dataset.pieces.split(" ").includes(String(number))) mark.classList.toggle("chosen", on);
      }
    };
    const leave = () => point(piece.ariaPressed === "true");
    for (const event of ["mouseenter", "focus"]) piece.addEventListener(event, () => point(true));
    for (const event of ["mouseleave", "blur"]) piece.addEventListener(event, leave);
    piece.addEventListener("click", () => { piece.ariaPressed = String(piece.ariaPressed !== "true"); });
    return make("li", {}, piece);
  });
  const list = make("ul", { className: "pieces", ariaLabel: "Query pieces and what they met", dir: RIGHT_TO_LEFT.test(query) ? "rtl" : "ltr" }, ...pieces);
  list.setAttribute("aria-describedby", "heat-hint");
  const sum = `pieces ${explanation.maxsim.toFixed(2)} + sentences ${explanation.sentence.toFixed(2)}`;
  return make("div", {}, list, make("div", { className: "facts", textContent: `score = ${sum}` }));
}

// A short value is a button that narrows the search to passages that have it too.
function showFacts(hit, narrow) {
  const facts = hit.title ? [make("li", { textContent: `id: ${hit.id}` })] : [];
  for (const [field, stored] of Object.entries(hit.metadata)) {
    for (const value of Array.isArray(stored) ? stored : [stored]) {
      if (value === null) continue;
      const text = typeof value === "object" ? JSON.stringify(value) : String(value);
      // A number that JavaScript rounds finds nothing, and no filter names such a field.
      const exact = typeof value !== "number" || !Number.isInteger(value) || Number.isSafeInteger(value);
      const named = field && field.length <= FIELD_CHARS;
      const usable = typeof value !== "object" && exact && named && text.length <= FILTER_CHARS;
      facts.push(make("li", { dir: "auto" }, usable
        ? pressable(`${field}: ${text}`, () => narrow(field, value), { className: "quiet", title: "Only passages with this" })
        : `${field}: ${text}`));
    }
  }
  return make("ul", { className: "facts", ariaLabel: "Metadata" }, ...facts);
}
