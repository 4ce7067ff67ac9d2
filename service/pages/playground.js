"use strict";

const EXAMPLES = [
  ["ja", "画像を編集するプログラム"], ["ko", "비밀번호 관리자"], ["ru", "проигрыватель видео"],
  ["de", "Dateien komprimieren"], ["fr", "client de messagerie"], ["es", "juego de cartas"],
  ["pt", "jogo de estratégia"], ["tr", "dosya yöneticisi"], ["zh", "下载网站的工具"],
];
const STAGES = ["queue", "tokenise", "encode", "search", "fetch", "explain", "total"];
const THEMES = ["system", "light", "dark"];
const HEADLINES = {
  0: "The service cannot be reached", 401: "An API key is needed", 404: "There is no such index",
  413: "This is too long", 422: "This cannot be searched", 429: "The service is busy",
  503: "The service is not ready", 504: "The answer took too long",
};
const WORTH_RETRYING = new Set([0, 429, 500, 502, 503, 504]);
const $ = (id) => document.getElementById(id);
const languages = new Intl.DisplayNames(["en"], { type: "language" });
const kept = { k: $("k").value, effort: $("effort").value, show: $("show").value };
const title = document.title;
let shown = location.search;
let filters = [];
let running = null;

class Failure extends Error {
  constructor(status, problem, requestId, retryAfter) {
    super(problem.detail);
    Object.assign(this, { status, requestId, retryAfter, errors: problem.errors || [] });
  }
}

async function call(path, options = {}) {
  const headers = { ...(options.body && { "Content-Type": "application/json" }) };
  if (!/^[\x20-\x7e]*$/.test($("key").value)) throw new Failure(401, { detail: "The API key holds characters that no key has; paste it again." });
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { detail: "No answer came back. Is the service running, and this machine connected?" });
  }
  // Between here and the service there may be a proxy, whose errors are no JSON.
  const body = await response.json().catch((error) => { if (error.name === "AbortError") throw error; return null; });
  if (response.ok && body) return body;
  if (response.status === 401) $("key-label").hidden = false;
  throw new Failure(response.status, body?.detail ? body : { detail: `The answer was ${response.status} ${response.statusText}`.trim() + "." },
    response.headers.get("x-request-id"), response.headers.get("retry-after"));
}

async function loadIndexes() {
  const chosen = $("index").value || new URLSearchParams(location.search).get("index");
  const { indexes } = await call("v1/indexes");
  const options = indexes.filter((index) => index.version).map((index) =>
    make("option", { value: index.name, textContent: `${index.name} (${index.passages.toLocaleString("en")})` }));
  for (const index of indexes) {
    for (const alias of index.stored?.aliases || []) options.push(make("option", { value: alias, textContent: `${alias} (alias of ${index.name})` }));
  }
  if (chosen && !options.some((option) => option.value === chosen)) options.push(make("option", { value: chosen, textContent: chosen }));
  $("index").replaceChildren(...options);
  if (chosen) $("index").value = chosen;
  $("index-label").hidden = options.length < 2;
  const count = indexes.reduce((sum, index) => sum + index.passages, 0);
  $("status").textContent = options.length ? `${count.toLocaleString("en")} passages are ready to be searched.` : "No index is built yet.";
}

async function search(remember = true) {
  const query = $("query").value.trim();
  if (!query) return;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const show = $("show").value;
  $("status").textContent = "Searching…";
  $("problem").replaceChildren();
  $("hits").ariaBusy = "true";
  showFilters();
  try {
    if (!$("index").value) await loadIndexes();
    if (!$("index").value) throw new Failure(404, { detail: "No index is built yet. Build one, then search again." });
    if (remember) rememberInAddress(query);
    const began = performance.now();
    const answer = await call(`v1/indexes/${encodeURIComponent($("index").value)}/search`, {
      method: "POST", signal,
      body: JSON.stringify({
        query, k: Number($("k").value), highlight: show === "words", explain: show === "heat",
        ...($("effort").value && { params: { effort: $("effort").value } }),
        ...(filters.length && { filter: { must: filters } }),
      }),
    });
    showAnswer(answer, query, performance.now() - began);
  } catch (error) {
    if (error.name !== "AbortError") showFailure(error);
  } finally {
    if (running.signal === signal) $("hits").ariaBusy = "false";
  }
}

function showAnswer(answer, query, round) {
  const count = answer.hits.length;
  const found = count === 0 ? "Nothing found" : `${count} ${count === 1 ? "passage" : "passages"}`;
  const warnings = [...incomplete(answer), ...answer.warnings.map((warning) => warning.message)].join(" ");
  $("status").replaceChildren(`${found} for `, make("bdi", { lang: "", textContent: query }),
    ` in ${round.toFixed(0)} ms, ${answer.took_ms.total.toFixed(1)} ms of it in the service. ${warnings}`);
  $("stages").replaceChildren(...STAGES.filter((stage) => answer.took_ms[stage] > 0).map((stage) => {
    const bar = make("i", { ariaHidden: "true" });
    bar.style.setProperty("--share", Math.min(1, answer.took_ms[stage] / answer.took_ms.total));
    return make("div", {}, make("dt", { textContent: stage }), make("dd", {}, `${answer.took_ms[stage].toFixed(2)} ms `, bar));
  }));
  $("hits").replaceChildren(...answer.hits.map((hit) => showHit(hit, query, narrow)));
  document.title = `${query} · DR.DECR playground`;
  $("share").hidden = !navigator.clipboard;
  $("nothing").replaceChildren(...(count === 0 ? advise(answer) : []));
}

function incomplete(answer) {
  if (!answer.partial) return [];
  if (!answer.missing_shards?.length) return ["The time was short: not every passage shows why it was found."];
  return [`The answer is not complete: no answer came from ${answer.missing_shards.join(", ")}.`];
}

function advise(answer) {
  if (answer.missing_shards?.length) return ["Some passages could not be searched. Try again in a moment."];
  if (!filters.length) return ["Try other words, or one of the examples above."];
  return ["No passage has what the filters ask for. ", pressable("Search without filters", () => {
    filters = [];
    $("query").focus();
    search();
  })];
}

function showFailure(failure) {
  const { status, requestId, retryAfter, errors = [] } = failure;
  const lines = [make("h3", { textContent: HEADLINES[status] || "The search failed" }), make("p", { textContent: failure.message })];
  if (errors.length > 1) lines.push(make("ul", {}, ...errors.map((error) => make("li", { textContent: `${error.pointer}: ${error.message}` }))));
  if (retryAfter) lines.push(make("p", { textContent: `Try again in ${retryAfter} s.` }));
  if (requestId) lines.push(make("p", {}, "Request id: ", make("code", { textContent: requestId })));
  if (WORTH_RETRYING.has(status)) lines.push(pressable("Try again", () => { $("query").focus(); retry(); }));
  $("status").textContent = "";
  $("share").hidden = true;
  $("stages").replaceChildren();
  $("hits").replaceChildren();
  $("nothing").replaceChildren();
  $("problem").replaceChildren(...lines);
  if (status === 401) $("key").focus();
}

function narrow(field, value) {
  if (!filters.some((filter) => filter.field === field && filter.eq === value)) filters.push({ field, eq: value });
  $("results").focus();
  search();
}

function showFilters() {
  $("filters").replaceChildren(...filters.map((filter) => make("li", {}, pressable(`${filter.field}: ${filter.eq} ✕`, () => {
    filters = filters.filter((other) => other !== filter);
    $("query").focus();
    search();
  }, { ariaLabel: `Remove the filter ${filter.field}: ${filter.eq}` }))));
}

function rememberInAddress(query) {
  const asked = new URLSearchParams({ q: query, index: $("index").value });
  for (const [name, usual] of Object.entries(kept)) {
    if ($(name).value !== usual) asked.set(name, $(name).value);
  }
  if (filters.length) asked.set("filter", JSON.stringify(filters));
  const address = `?${asked}`;
  if (address !== location.search) history.pushState(null, "", address);
  shown = location.search;
}

function readAddress() {
  shown = location.search;
  const asked = new URLSearchParams(location.search);
  for (const [name, usual] of Object.entries(kept)) {
    const known = [...$(name).options].some((option) => option.value === asked.get(name));
    $(name).value = known ? asked.get(name) : usual;
  }
  if (asked.get("index")) $("index").value = asked.get("index");
  $("query").value = asked.get("q") || "";
  filters = [];
  try {
    filters = JSON.parse(asked.get("filter") || "[]").map(({ field, eq }) => ({ field, eq }));
  } catch {
    throw new Failure(422, { detail: "The filter in this address cannot be read. Search again to leave it out." });
  }
}

async function start(fresh = true) {
  try {
    if (fresh) readAddress();
    if (!$("index").value) await loadIndexes();
    if ($("query").value) await search(false);
    else if (fresh) clear();
  } catch (error) {
    showFailure(error);
  }
}

function retry() {
  return $("query").value.trim() ? search() : start(false);
}

// An address without a query, as after Back, shows nothing of the search that came after it.
function clear() {
  running?.abort();
  for (const id of ["hits", "stages", "problem", "nothing"]) $(id).replaceChildren();
  showFilters();
  $("share").hidden = true;
  if (document.title !== title) $("status").textContent = "";
  document.title = title;
}

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

$("examples").append(...EXAMPLES.map(([lang, text]) => make("li", {}, pressable(
  [make("small", { textContent: languages.of(lang) }), make("bdi", { lang, textContent: text })],
  () => { $("query").value = text; search(); }))));
$("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
for (const id of ["index", "k", "show", "effort"]) $(id).addEventListener("change", () => search());
$("theme").addEventListener("click", () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("theme", theme);
  useTheme(theme);
});
$("share").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href);
  $("share").textContent = "Link copied";
  setTimeout(() => { $("share").textContent = "Copy link"; }, 2_000);
});
// The skip link changes the address too, by its fragment: nothing is to be shown anew then.
addEventListener("popstate", () => { if (location.search !== shown) start(); });

useTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");
start();
