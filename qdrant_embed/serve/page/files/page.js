// The page: asks the service, and shows what it answers. What documents say is only ever text:
// nothing here makes HTML, and the page's policy would not let it.

const NAMES = {
  dense: "Dense", sparse: "Sparse", hybrid: "Hybrid", late: "Late interaction", reranked: "Reranked",
};
const SHOWN = 600; // characters of a text in the list of hits
const SHOWN_VALUE = 200; // of a value

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const byId = (id) => document.getElementById(id);
let known = []; // the collections
let fields = []; // the chosen collection's
let searches = 0; // of which only the last one is shown

// asking

/** Read JSON; whole numbers that JavaScript would round stay as they are written. */
function read(text) {
  return JSON.parse(text, (_, value, context) => {
    const isRounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isRounded && context && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  });
}

/** Send a request, and return its answer; throw what the service says is wrong. */
async function ask(method, path, body) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers["api-key"] = key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    text = await response.text();
  } catch {
    throw new Error("the service does not answer");
  }
  if (response.status === 401) {
    await askForKey();
    return ask(method, path, body);
  }
  let answer;
  try {
    answer = read(text);
  } catch {
    throw new Error(`the service answered with status ${response.status}`);
  }
  if (!response.ok) throw new Error(answer.error?.message ?? `status ${response.status}`);
  return answer;
}

const pathOf = (collection, rest = "") => `/collections/${encodeURIComponent(collection)}${rest}`;

let waitingForKey = null;
function askForKey() {
  waitingForKey ??= new Promise((resolve) => {
    const dialog = byId("key-needed");
    dialog.showModal();
    dialog.oncancel = (event) => event.preventDefault();
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("key", byId("key").value);
      byId("key").value = "";
      dialog.close();
      waitingForKey = null;
      resolve();
    };
  });
  return waitingForKey;
}

// building

/** Make an element with text and further nodes in it. */
function make(tag, { text, className, ...attributes } = {}, ...inner) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  made.append(...inner);
  return made;
}

/** Return a JSON value as text. */
function shown(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return text.length > SHOWN_VALUE ? `${text.slice(0, SHOWN_VALUE)}…` : text;
}

function say(id, message) {
  byId(id).textContent = message;
  byId(id).hidden = !message;
}

const inMs = (seconds) => `${(1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function pairs(facts) {
  const list = [];
  for (const [name, value] of Object.entries(facts)) {
    list.push(make("dt", { text: shown(name) }), make("dd", { text: shown(value) }));
  }
  return list;
}

// collections

async function loadCollections() {
  ({ collections: known } = await ask("GET", "/collections"));
  const select = byId("collection");
  const wanted = new URLSearchParams(location.hash.slice(1)).get("collection") ?? select.value;
  select.replaceChildren(...known.map(({ name }) => make("option", { text: name, value: name })));
  if (known.some(({ name }) => name === wanted)) select.value = wanted;
  byId("known").replaceChildren(...known.map(({ name }) => make("option", { value: name })));
  byId("collection-list").replaceChildren(...known.map(card));
  if (!known.length) say("status", "There are no collections yet: add documents.");
  await chooseCollection();
}

function card({ name, points, stamp, vectors, sparse_vectors: sparse, problem }) {
  const made = make("article", { className: "card" }, make("h3", { text: name }));
  const said = points === null ? [] : [counted(points, "point")];
  if (stamp) said.push(stamp.model, `${stamp.dimension} dimensions`);
  if (stamp?.sparse) said.push(`sparse: ${stamp.sparse.model}`);
  if (stamp?.late) said.push(`late: ${stamp.late.model}`);
  if (!stamp && !problem) {
    said.push("no stamp", `vectors: ${[...vectors, ...sparse].map((given) => given || "the unnamed one").join(", ")}`);
  }
  made.append(make("p", { text: said.map(shown).join(" · ") }));
  if (problem) made.append(make("p", { text: problem }));
  if (stamp) {
    made.append(make("details", {}, make("summary", { text: "Stamp" }), make("dl", {}, ...pairs(stamp))));
  }
  return made;
}

async function chooseCollection() {
  const name = byId("collection").value;
  byId("columns").replaceChildren();
  byId("ways").querySelectorAll("label").forEach((label) => label.remove());
  fields = [];
  showFields();
  if (!name) return;
  const described = await ask("GET", pathOf(name));
  if (name !== byId("collection").value) return; // another one was chosen meanwhile
  for (const way of described.ways) {
    const box = make("input", { type: "checkbox", value: way });
    box.checked = true;
    box.onchange = search;
    byId("ways").append(make("label", {}, box, NAMES[way]));
  }
  fields = described.fields;
  showFields();
}

// filters

function showFields() {
  byId("filters").hidden = !fields.length;
  byId("fields").replaceChildren(...fields.map(fieldGroup));
  countFilters();
}

function fieldGroup({ path, kind, values }, index) {
  const id = `field-${index}`;
  const group = make("div", { role: "group", "aria-labelledby": id }, make("p", { className: "name", id, text: path }));
  const labelled = (text, input) => make("label", {}, make("span", { className: "quiet", text }), input);
  if (kind === "number" || kind === "date") {
    const type = kind === "number" ? { type: "number", step: "any" } : { type: "date" };
    const [from, to] = ["gte", "lte"].map((bound) => make("input", { ...type, "data-bound": bound }));
    group.append(make("div", { className: "range" }, labelled("from", from), labelled("to", to)));
  } else if (kind === "text") {
    group.append(labelled("contains", make("input", { type: "text", autocomplete: "off" })));
  } else {
    const given = kind === "bool" ? ["true", "false"] : values;
    const options = given.map((value) => make("option", { text: value, value: `=${value}` }));
    group.append(labelled("is", make("select", {}, make("option", { text: "anything", value: "" }), ...options)));
  }
  return group;
}

/** Return the filter that is set, as `where` has it. */
function where() {
  const conditions = [];
  byId("fields").childNodes.forEach((group, index) => {
    const { path, kind } = fields[index];
    const inputs = [...group.querySelectorAll("input, select")].filter((input) => input.value !== "");
    if (!inputs.length) return;
    const [{ value }] = inputs;
    if (kind === "bool") conditions.push([path, value === "=true"]);
    else if (kind === "choice") conditions.push([path, value.slice(1)]);
    else if (kind === "text") conditions.push([path, { text: value }]);
    else conditions.push([path, Object.fromEntries(inputs.map((input) => [input.dataset.bound, bound(kind, input)]))]);
  });
  return Object.fromEntries(conditions); // which makes a property of any name, also __proto__
}

function bound(kind, { value, dataset }) {
  if (kind === "number") return Number(value);
  return dataset.bound === "lte" ? `${value}T23:59:59.999999` : value; // a day ends when it is over
}

function countFilters() {
  const count = Object.keys(where()).length;
  byId("filter-count").textContent = count ? `(${count})` : "";
}

// searching

async function search() {
  const query = byId("query").value.trim();
  const collection = byId("collection").value;
  const ways = [...byId("ways").querySelectorAll("input:checked")].map((box) => box.value);
  countFilters();
  say("problem", "");
  if (!query || !collection || !ways.length) return;
  const state = new URLSearchParams({ collection, query });
  history.replaceState(null, "", `#${state}`);
  const number = ++searches;
  byId("status").textContent = "Searching…";
  byId("go").disabled = true;
  try {
    const body = { query, ways, limit: Number(byId("limit").value), where: where() };
    const started = performance.now();
    const { found } = await ask("POST", pathOf(collection, "/compare"), body);
    if (number !== searches) return;
    byId("columns").replaceChildren(...found.map((one, index) => column(collection, one, index)));
    const hits = found.map(({ hits }) => hits.length);
    byId("status").textContent = `${counted(Math.max(...hits), "hit")} in ${inMs((performance.now() - started) / 1000)}`;
  } catch (error) {
    if (number !== searches) return;
    byId("status").textContent = "";
    byId("columns").replaceChildren();
    say("problem", error.message);
  } finally {
    if (number === searches) byId("go").disabled = false;
  }
}

function column(collection, { way, hits, encoding, searching, reranking }, index) {
  const id = `column-${index}`;
  const times = [`encoded in ${inMs(encoding)}`, `searched in ${inMs(searching)}`];
  if (reranking !== null) times.push(`reranked in ${inMs(reranking)}`);
  const shares = sharesOf(way, hits.map(({ score }) => score));
  const list = make("ol", {}, ...hits.map((hit, rank) => make("li", {}, hitButton(collection, hit, shares[rank]))));
  return make(
    "section", { className: "column", "aria-labelledby": id, "data-way": way },
    make("h2", { id, text: NAMES[way] }),
    make("p", { className: "times", text: times.join(" · ") }),
    hits.length ? list : make("p", { text: "Nothing was found." }),
  );
}

/** Return how long the bar of each score is: cosines as they are, others beside the best. */
function sharesOf(way, scores) {
  const best = Math.max(...scores), least = Math.min(...scores);
  if (way === "dense" || (way === "reranked" && least >= 0 && best <= 1)) return scores;
  if (least >= 0) return scores.map((score) => score / (best || 1));
  return scores.map((score) => (best > least ? (score - least) / (best - least) : 1));
}

function hitButton(collection, hit, share) {
  const bar = make("span");
  bar.style.setProperty("--share", Math.min(1, Math.max(0, share)));
  const facts = Object.entries(hit.metadata).map(([name, value]) => `${shown(name)}: ${shown(value)}`);
  const own = UUID.test(shown(hit.id)) ? [] : [shown(hit.id)]; // one that was made up tells nothing
  const button = make(
    "button", { type: "button", className: "hit" },
    make("span", { className: "score" },
      make("span", { text: hit.score.toPrecision(3) }),
      make("span", { className: "bar", "aria-hidden": "true" }, bar)),
    make("span", { className: "snippet", text: hit.document.slice(0, SHOWN) || "(no text)" }),
    make("span", { className: "facts quiet", text: [...own, ...facts.slice(0, 6)].join(" · ") }),
  );
  button.onclick = () => openDocument(collection, hit);
  return button;
}

// a document

async function openDocument(collection, hit) {
  let whole = { id: hit.id, text: hit.document, metadata: hit.metadata, complete: true };
  let note = "";
  try {
    const { documents } = await ask("POST", pathOf(collection, "/documents/get"), { ids: [hit.id] });
    if (documents[0]) [whole] = documents;
    else note = "The document is not stored any more; this is the part that was found.";
  } catch (error) {
    note = error.message;
  }
  const isPart = hit.chunk && Number.isInteger(hit.chunk.start) && !note;
  if (!whole.complete) note = "Some chunks of the document are missing.";
  else if (isPart) note = `Chunk ${hit.chunk.position + 1} of ${hit.chunk.count} matched; it is marked.`;
  byId("document-title").textContent = shown(hit.id);
  say("document-note", note);
  byId("document-metadata").replaceChildren(...pairs(whole.metadata));
  const text = byId("document-text");
  if (isPart) text.replaceChildren(...marked(whole.text, hit.chunk));
  else text.textContent = whole.text;
  byId("document").showModal();
  text.focus();
  text.querySelector("mark")?.scrollIntoView({ block: "center" });
}

/** Return a text with the chunk in it marked; its ends count characters, and not UTF-16 units. */
function marked(text, { start, end }) {
  const characters = Array.from(text);
  const part = (from, to) => characters.slice(from, to).join("");
  return [part(0, start), make("mark", { text: part(start, end) }), part(end)];
}

// adding

/** Run what adds something, and say how it ended. */
async function adding(form, run) {
  const collection = byId("add-collection").value.trim();
  say("not-added", "");
  byId("added").textContent = "";
  if (!collection) {
    say("not-added", "Name a collection.");
    byId("add-collection").focus();
    return;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  byId("added").textContent = "Adding…";
  try {
    const said = await run(collection);
    form.reset();
    location.hash = new URLSearchParams({ collection, query: byId("query").value });
    await loadCollections();
    byId("added").textContent = said;
    await search();
  } catch (error) {
    byId("added").textContent = "";
    say("not-added", error.message);
  } finally {
    button.disabled = false;
  }
}

async function addText(collection) {
  const document = { text: byId("text").value };
  if (byId("metadata").value.trim()) {
    try {
      document.metadata = read(byId("metadata").value);
    } catch {
      throw new Error('the metadata is not JSON, like {"year": 2024}');
    }
  }
  if (byId("id").value) document.id = byId("id").value;
  const { ids } = await ask("POST", pathOf(collection, "/documents"), { documents: [document] });
  return `Added ${shown(ids[0])}.`;
}

async function addFile(collection) {
  const [file] = byId("file").files;
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
  const body = { name: file.name, content: url.slice(url.indexOf(",") + 1), text_field: byId("text-field").value };
  if (byId("id-field").value) body.id_field = byId("id-field").value;
  const { stored } = await ask("POST", pathOf(collection, "/files"), body);
  return `${counted(stored, "document")} of ${file.name} ${stored === 1 ? "is" : "are"} stored.`;
}

// keys

const MOVES = { ArrowDown: [0, 1], ArrowUp: [0, -1], ArrowRight: [1, 0], ArrowLeft: [-1, 0] };

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (key === "/" && !target.closest("input:not([type=checkbox]), textarea, select")) {
    event.preventDefault();
    byId("query").select();
    return;
  }
  const move = MOVES[key];
  const columns = [...document.querySelectorAll(".column")].map((one) => [...one.querySelectorAll(".hit")]);
  let place;
  if (target.id === "query" && key === "ArrowDown") place = [0, 0];
  else if (move && target.matches(".hit")) {
    const across = columns.findIndex((hits) => hits.includes(target));
    place = [across + move[0], columns[across].indexOf(target) + move[1]];
  }
  const hits = place && columns[place[0]];
  const next = hits?.[Math.min(place[1], hits.length - 1)];
  if (next) {
    event.preventDefault();
    next.focus();
  } else if (place?.[1] === -1) byId("query").focus();
}

// the beginning

const failing = (run) => (...given) => run(...given).catch((error) => say("problem", error.message));

document.addEventListener("keydown", onKey);
byId("search").onsubmit = (event) => {
  event.preventDefault();
  search();
};
byId("limit").onchange = search;
byId("fields").onchange = search;
byId("clear").onclick = () => {
  showFields();
  search();
};
byId("collection").onchange = failing(async () => {
  say("problem", "");
  byId("status").textContent = "";
  await chooseCollection();
  await search();
});
byId("open-add").onclick = () => {
  byId("add-collection").value = byId("collection").value;
  byId("added").textContent = "";
  say("not-added", "");
  byId("add").showModal();
};
byId("add-text").onsubmit = (event) => {
  event.preventDefault();
  adding(event.target, addText);
};
byId("add-file").onsubmit = (event) => {
  event.preventDefault();
  adding(event.target, addFile);
};
for (const button of document.querySelectorAll(".close")) {
  button.onclick = () => button.closest("dialog").close();
}
byId("query").value = new URLSearchParams(location.hash.slice(1)).get("query") ?? "";
failing(async () => {
  await loadCollections();
  await search();
})();
