"use strict";
// The page of a review. Whatever comes from the run is put in as text, never as markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const choices = ["order", "score", "of", "reason", "words"];
const state = { run: null, items: [], at: 0, place: 0, pair: null, left: 0, judged: 0, busy: false };

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

async function ask(path, values, post = false) {
  const request = post
    ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) }
    : {};
  const query = post ? "" : "?" + new URLSearchParams(values);
  let response;
  try {
    response = await fetch(path + query, request);
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { error: text.trim() || response.statusText };
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function tell(problem) {
  $("problem").textContent = problem ? problem.message : "";
  $("problem").hidden = !problem;
}

// One task at a time, so that no key judges a pair that is not on the page yet. What goes wrong is
// shown, and the page stays as it was.
async function alone(task) {
  if (state.busy) return;
  busy(true);
  try {
    await task();
    tell(null);
  } catch (problem) {
    tell(problem);
  } finally {
    busy(false);
  }
}

function busy(value) {
  state.busy = value;
  document.querySelector("main").setAttribute("aria-busy", value);
}

// ---- which text

const chosen = () => Object.fromEntries(choices.map((id) => [id, $(id).value]));
const asked = () => ({ ...chosen(), cut: $("limit").value || 0, labeller: $("labeller").value });

async function fill(anew) {
  const found = await ask("/api/queue", asked());
  const known = new Set(anew ? [] : state.items.map(String));
  const fresh = found.texts.filter((item) => !known.has(String(item)));
  state.items = anew ? fresh : state.items.concat(fresh);
  if (anew) state.at = 0;
  state.left = found.left;
  state.judged = found.judged;
}

async function restart() {
  remember();
  await fill(true);
  await show();
}

async function show() {
  if (state.at >= state.items.length - 1) await fill(false);
  const item = state.items[state.at];
  if (!item) {
    state.pair = null;
    draw();
    return;
  }
  state.place = item[1];
  state.pair = await ask("/api/pair", { record: item[0] });
  draw();
  const next = state.items[state.at + 1];
  if (next) new Image().src = imageOf(next[0]);
}

function progress() {
  const left = state.left.toLocaleString("en"), done = state.judged.toLocaleString("en");
  $("progress").textContent = `${done} judged · ${left} left of this choice`;
}

function draw() {
  const pair = state.pair, picture = $("picture");
  progress();
  for (const button of document.querySelectorAll("[data-label]")) button.disabled = !pair;
  $("back").disabled = state.at === 0;
  $("question").textContent = pair
    ? "Does the marked text fit the image?"
    : "Nothing is left to judge here: choose other texts above.";
  if (!pair) {
    $("texts").replaceChildren();
    $("known").textContent = "";
    picture.removeAttribute("src");
    return;
  }
  const address = imageOf(pair.record);
  if (picture.getAttribute("src") !== address) {
    picture.classList.remove("missing");
    picture.setAttribute("src", address);
  }
  const known = Object.entries(pair.image_scores).map(([name, value]) => `${name} ${shown(value)}`);
  $("known").textContent = [pair.key, ...known].join(" · ");
  $("texts").replaceChildren(...pair.texts.map((text, place) => candidate(text, place)));
  $("note").value = own(pair.texts[state.place])?.note ?? "";
}

const imageOf = (record) => `/images/${record}?${state.run.mark}`;
const shown = (value) =>
  typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value ?? "–");
const own = (text) => text.labels.find((label) => label.labeller === $("labeller").value);

function candidate(text, place) {
  const facts = element("span", { class: "facts" }, element("span", {}, text.source));
  for (const [name, score] of Object.entries(text.scores)) {
    facts.append(element("span", {}, name + " ", element("b", {}, shown(score))));
  }
  facts.append(element("span", {}, text.reason));
  const mine = own(text);
  // What others say is not shown before one's own judgement.
  for (const label of mine ? text.labels : []) {
    const name = label === mine ? label.label : `${label.labeller}: ${label.label}`;
    facts.append(element("span", { class: label.label.replaceAll(" ", "-") }, name));
    if (label.note) facts.append(element("span", {}, `“${label.note}”`));
  }
  const said = element("span", { class: "said" }, text.text || "(empty)");
  const current = String(place === state.place);
  const button = element("button", { type: "button", class: "candidate", "aria-current": current }, said, facts);
  button.addEventListener("click", () => choose(place));
  return element("li", {}, button);
}

function choose(place) {
  if (!state.pair || place < 0 || place >= state.pair.texts.length) return;
  state.place = place;
  draw();
}

// ---- judging

async function judge(label, stay = false) {
  if (!state.pair) return;
  const before = own(state.pair.texts[state.place]);
  const labeller = $("labeller").value, note = $("note").value.trim();
  const record = state.pair.record, place = state.place;
  state.pair = await ask("/api/label", { record, place, label, labeller, note }, true);
  if (!before) {
    state.judged += 1;
    state.left = Math.max(0, state.left - 1);
  }
  if (stay || place !== state.items[state.at][1]) {
    draw(); // another text of the image than the one that is asked for: that one comes next
    if (!stay) choose(state.items[state.at][1]);
  } else {
    await step(1);
  }
  measureSoon();
}

async function step(by) {
  state.at = Math.min(Math.max(0, state.at + by), state.items.length);
  await show();
}

// ---- the cut

let waiting = 0;

async function measure() {
  if (!state.run.score) return;
  const values = { score: $("score").value, of: $("of").value, cut: $("limit").value || 0 };
  const cut = await ask("/api/cut", values);
  Object.assign($("slider"), { min: cut.low, max: cut.high, step: (cut.high - cut.low) / 1000 });
  $("slider").value = cut.limit;
  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1) + " %");
  $("kept").textContent = percent(cut.texts ? cut.kept / cut.texts : null);
  $("kept-of").textContent = `${cut.kept.toLocaleString("en")} of ${cut.texts.toLocaleString("en")}`;
  for (const name of ["precision", "recall"]) {
    const { value, low, high } = cut[name];
    $(name).textContent = percent(value);
    $(name + "-interval").textContent =
      value === null ? "no labels" : `${(100 * low).toFixed(0)}–${(100 * high).toFixed(0)} %`;
  }
  const area = cut.auc === null ? "" : ` Area under the curve ${cut.auc.toFixed(3)}.`;
  const part = cut.judged && cut.represented < 0.999
    ? ` They stand for the ${percent(cut.represented)} of all texts that have scores like theirs: judge` +
      " some spread over the scores."
    : "";
  $("judged").textContent = `${cut.judged} judged, ${cut.fit} of them fit.${area} Intervals of 95 %.${part}`;
  drawBars(cut);
  drawRoc(cut);
}

function drawBars(cut) {
  const width = 400 / cut.bars.length, most = Math.max(1, ...cut.bars);
  const judged = Math.max(1, ...cut.bars.map((_, n) => cut.right[n] + cut.wrong[n]));
  const x = (400 * (cut.limit - cut.low)) / (cut.high - cut.low);
  const parts = [];
  const bar = (kind, n, y, height) =>
    parts.push(drawn("rect", { class: kind, x: n * width + 0.5, y, width: width - 1, height }));
  cut.bars.forEach((number, n) => {
    const kind = "all" + ((n + 0.5) * width < x ? " out" : "");
    bar(kind, n, 80 * (1 - number / most), (80 * number) / most);
    const right = (36 * cut.right[n]) / judged, wrong = (36 * cut.wrong[n]) / judged;
    bar("right", n, 84, right);
    bar("wrong", n, 84 + right, wrong);
  });
  parts.push(drawn("line", { x1: x, x2: x, y1: 0, y2: 120 }));
  $("bars").replaceChildren(...parts);
}

function drawRoc(cut) {
  const path = cut.roc.map(([x, y], n) => `${n ? "L" : "M"}${200 * x} ${200 * (1 - y)}`).join("");
  $("roc").toggleAttribute("hidden", !cut.roc.length);
  $("roc").replaceChildren(
    drawn("rect", { class: "frame", x: 0, y: 0, width: 200, height: 200 }),
    drawn("line", { class: "chance", x1: 0, y1: 200, x2: 200, y2: 0 }),
    drawn("path", { class: "curve", d: path || "M0 0" }),
    drawn("text", { x: 194, y: 192, "text-anchor": "end" }, "wrong ones kept →"),
    drawn("text", { x: 6, y: 14 }, "↑ right ones kept"),
  );
}

function move(value) {
  $("limit").value = Number(Number(value).toPrecision(6));
  remember();
  measureSoon();
}

// Not a task: who judges fast need not wait for it.
function measureSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => measure().catch(tell), 40);
}

async function take() {
  const values = { score: $("score").value, of: $("of").value, cut: Number($("limit").value) };
  const taken = await ask("/api/take", values, true);
  $("taken").textContent = `Written. Now: ${taken.command}`;
}

// ---- start

const memory = () => "lavis_lite review " + state.run.folder;

function remember() {
  const kept = { ...chosen(), limit: $("limit").value, labeller: $("labeller").value };
  localStorage.setItem(memory(), JSON.stringify(kept));
}

function recall() {
  const { score, cut, labeller } = state.run;
  const start = { score: score ?? "", limit: cut ?? 0, labeller };
  const kept = JSON.parse(localStorage.getItem(memory()) ?? "{}");
  for (const [id, value] of Object.entries({ ...start, ...kept })) {
    const field = $(id);
    const lost = field.tagName === "SELECT" && ![...field.options].some((one) => one.value === value);
    if (!lost) field.value = value; // a score or verdict that the run has no more is not chosen
  }
}

const keys = {
  1: () => alone(() => judge("fits")),
  2: () => alone(() => judge("does not fit")),
  3: () => alone(() => judge("unsure")),
  b: () => alone(() => step(-1)),
  s: () => alone(() => step(1)),
  n: () => $("note").focus(),
  ArrowDown: () => choose(state.place + 1),
  ArrowUp: () => choose(state.place - 1),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function noted(event) {
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  $("note").blur();
  const mine = state.pair && own(state.pair.texts[state.place]);
  if (event.key === "Enter" && mine) alone(() => judge(mine.label, true));
}

function listen() {
  document.addEventListener("keydown", pressed);
  $("note").addEventListener("keydown", noted);
  for (const button of document.querySelectorAll("[data-label]")) {
    button.addEventListener("click", () => alone(() => judge(button.dataset.label)));
  }
  $("back").addEventListener("click", keys.b);
  $("skip").addEventListener("click", keys.s);
  $("take").addEventListener("click", () => alone(take));
  $("slider").addEventListener("input", (event) => move(event.target.value));
  $("limit").addEventListener("change", (event) => move(event.target.value));
  $("choice").addEventListener("submit", (event) => event.preventDefault());
  for (const id of [...choices, "labeller"]) {
    $(id).addEventListener("change", (event) => {
      if (event.target.tagName === "SELECT") event.target.blur(); // keys judge again
      alone(restart);
      measureSoon();
    });
  }
  $("picture").addEventListener("error", async () => {
    $("picture").classList.add("missing");
    const why = await ask($("picture").getAttribute("src"), {}).then(() => "no image", (p) => p.message);
    $("known").textContent = why;
  });
}

async function start() {
  state.run = await ask("/api/run", {});
  const options = (id, names) => $(id).append(...names.map((name) => new Option(name, name)));
  options("score", state.run.scores);
  options("of", state.run.of);
  options("reason", state.run.reasons);
  recall();
  listen();
  document.querySelector(".cut").hidden = !state.run.score;
  await Promise.all([restart(), measure()]);
}

alone(start);
