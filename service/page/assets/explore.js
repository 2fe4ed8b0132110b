/** Try it: a history, its candidates, and the map. */

import { call, latest } from "./api.js";
import { candidates } from "./candidates.js";
import { $, h, number } from "./dom.js";
import { chips, names } from "./interests.js";
import { drawMap, setSample } from "./map.js";
import { startSearch } from "./search.js";

const items = new Map(); // id -> title, category, place of the live release
const otherItems = new Map();
let sequence = [];
let examples = [];
let nextExample = 0;
let chosen = null; // the interest whose candidates alone are shown
let last = null; // the last answer, and what belongs to it
let fail = () => {};

export async function startExploring(setup, onProblem) {
  fail = onProblem;
  examples = setup.examples;
  startSearch((item) => { items.set(item.item_id, item); add(item.item_id); }, fail);
  $("categories").replaceChildren(...setup.categories.map(([name, count], position) =>
    h("label", {}, h("input", { type: "checkbox", value: name, id: `category-${position}`, change: update }), ` ${name} (${number(count)})`)));
  for (const id of ["k", "diversity"]) $(id).addEventListener("input", update);
  for (const id of ["filter-mode", "other"]) $(id).addEventListener("change", update);
  $("clear").addEventListener("click", () => change([], "An empty history gets popular items."));
  $("example").addEventListener("click", showExample);
  $("load-user").addEventListener("submit", loadUser);
  if (examples.length) showExample();
  else update();
  call("GET", "page/map").then((answer) => { setSample(answer); draw(); }, fail);
  listReleases();
}

/** The releases that can be compared with the live one. */
export async function listReleases() {
  const { releases } = await call("GET", "page/releases");
  const before = $("other").value;
  $("other").replaceChildren(
    h("option", { value: "" }, "none"),
    ...releases.filter((release) => !release.live && !release.problem).map(({ id }) => h("option", { value: id }, id)),
  );
  $("other").value = releases.some(({ id, live }) => id === before && !live) ? before : "";
  return releases;
}

/** After another release has become the live one. */
export async function forgetRelease() {
  items.clear();
  await update();
  setSample(await call("GET", "page/map"));
  draw();
}

function showExample() {
  const example = examples[nextExample++ % examples.length] ?? [];
  change(example, `Example ${((nextExample - 1) % examples.length) + 1} of ${examples.length}: the history of a user that the release was measured on.`);
}

async function loadUser(event) {
  event.preventDefault();
  const user = $("user").value.trim();
  if (!user) return;
  try {
    const history = await call("GET", `users/${encodeURIComponent(user)}/history`);
    change(history.items, history.count ? `${history.count} stored items of user ${user}.` : `User ${user} has no stored history.`);
  } catch (error) {
    fail(error);
  }
}

function change(history, note) {
  sequence = [...history];
  chosen = null;
  $("history-note").textContent = note;
  update();
}

function add(id) {
  const within = $("candidates-panel").contains(document.activeElement);
  change([...sequence, id], "");
  if (within) $("candidates-title").focus({ preventScroll: true });
}

function remove(position) {
  change(sequence.filter((_, i) => i !== position), "");
  $("history-title").focus({ preventScroll: true });
}

function wanted() {
  const checked = [...$("categories").querySelectorAll(":checked")].map((box) => box.value);
  const mode = $("filter-mode").value;
  $("filter-now").textContent = !checked.length ? "all" : `${mode === "allow" ? "only" : "without"} ${checked.length > 2 ? `${checked.length} chosen` : checked.join(", ")}`;
  $("k-now").textContent = $("k").value;
  $("diversity-now").textContent = $("diversity").value;
  return {
    sequence, k: Number($("k").value), diversity: Number($("diversity").value), explain: true,
    ...(checked.length ? { categories: { [mode]: checked } } : {}),
  };
}

const ask = latest(async (signal, body, other) => {
  const start = performance.now();
  const [answer, compared] = await Promise.all([
    call("POST", "recommend", { body, signal }),
    other ? call("POST", "page/compare", { body: { release: other, request: body }, signal }) : null,
  ]);
  const ids = [...new Set([...body.sequence, ...answer.items.map(({ item_id }) => item_id)])];
  const [described, otherDescribed] = await Promise.all([
    describe(ids, body.sequence, null, signal),
    compared && describe([...body.sequence, ...compared.items.map(({ item_id }) => item_id)], [], other, signal),
  ]);
  return { answer, compared, described, otherDescribed, other, body, milliseconds: performance.now() - start };
});

const describe = (ids, history, release, signal) =>
  call("POST", "page/describe", { body: { items: ids.slice(0, 1000), sequence: history, ...(release ? { release } : {}) }, signal });

async function update() {
  try {
    const result = await ask(wanted(), $("other").value);
    if (!result) return; // a newer one is under way
    for (const [id, item] of Object.entries(result.described.items)) items.set(id, item);
    for (const [id, item] of Object.entries(result.otherDescribed?.items ?? {})) otherItems.set(id, item);
    last = result;
    fail(null);
    draw();
    performance.mark("candidates");
    document.documentElement.dataset.updates = String(Number(document.documentElement.dataset.updates ?? 0) + 1);
  } catch (error) {
    fail(error);
  }
}

function draw() {
  if (!last) return;
  const { answer, compared, described, body, milliseconds } = last;
  const named = names(answer.interests ?? [], items);
  drawHistory(body.sequence);
  const took = `${milliseconds.toFixed(0)} ms to this page${answer.server_ms === null ? "" : `, ${answer.server_ms.toFixed(1)} ms of them in the server`}`;
  const kind = answer.source === "popular" ? "popular items, as no interest is known," : "candidates";
  $("answer-note").textContent = `${answer.items.length} ${kind} in ${took}.${answer.unknown_items ? ` ${answer.unknown_items} items are unknown to the release.` : ""}`;
  $("interests").replaceChildren(...chips(answer.interests ?? [], named, chosen, (interest) => { chosen = interest; draw(); }));
  const inBoth = compared && new Set(answer.items.map(({ item_id }) => item_id).filter((id) => compared.items.some((item) => item.item_id === id)));
  $("candidates").replaceChildren(...candidates(answer, items, named, { add, chosen, inBoth }));
  $("live-title").textContent = `${answer.release}, live`;
  drawCompared(compared, inBoth);
  drawMap(answer, items, body.sequence, described.interests, named, chosen);
}

function drawCompared(compared, inBoth) {
  $("compared").hidden = $("live-title").hidden = !compared;
  $("answers").classList.toggle("two", Boolean(compared));
  if (!compared) return;
  $("compared-title").textContent = `${compared.release}: ${inBoth.size} of ${compared.items.length} in both`;
  const named = names(compared.interests ?? [], otherItems);
  $("other-candidates").replaceChildren(...candidates(compared, otherItems, named, { add: null, inBoth }));
}

function drawHistory(history) {
  $("history").replaceChildren(...history.map((id, position) => {
    const known = items.get(id);
    const title = known?.title ?? id;
    return h(
      "li", { "data-item": id },
      h("span", { class: "title" }, title), h("span", { class: "quiet" }, known ? (known.category ?? "") : "unknown to the release"),
      h("button", { type: "button", "aria-label": `Remove ${title}`, click: () => remove(position) }, "Remove"),
    );
  }));
}
