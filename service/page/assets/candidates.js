/** A list of candidates, and why each is in it. */

import { h, percent } from "./dom.js";
import { badge, colour } from "./interests.js";

/** answer: of /recommend with explain. items: id -> what is known of it. add: takes an item id. */
export function candidates(answer, items, named, { add, chosen = null, inBoth = null }) {
  return answer.items
    .map((item, position) => ({ ...item, position }))
    .filter((item) => chosen === null || item.interest === chosen)
    .map((item) => candidate(item, answer, items, named, add, inBoth));
}

function candidate(item, answer, items, named, add, inBoth) {
  const title = items.get(item.item_id)?.title ?? item.item_id;
  const why = h("details", {}, h("summary", {}, "Why", h("span", { class: "hidden-text" }, `: ${title}`)));
  why.addEventListener("toggle", () => {
    if (why.open && why.childElementCount === 1) why.append(reasons(item, answer, items, named));
  });
  return h(
    "li",
    { class: `candidate ${colour(item.interest)}`, value: item.position + 1, "data-item": item.item_id },
    h("div", { class: "line" },
      h("span", { class: "rank", "aria-hidden": "true" }, `${item.position + 1}`),
      h("span", { class: "title" }, title),
      add && h("button", { type: "button", class: "add", "aria-label": `Add ${title} to the history`, click: () => add(item.item_id) }, "Add")),
    h("div", { class: "line quiet" },
      badge(item.interest, named),
      h("span", {}, items.get(item.item_id)?.category ?? "no category"),
      item.new ? h("span", {}, "new") : null,
      inBoth?.has(item.item_id) ? h("span", { class: "both" }, "in both") : null,
      h("span", { class: "score" }, item.score.toFixed(2))),
    why,
  );
}

function reasons(item, answer, items, named) {
  const { item_id: id, interest } = item;
  const known = items.get(id);
  if (interest === null) {
    return h("div", { class: "why" }, h("p", {}, `No interest is known, so popular items are shown. This one has ${item.score} interactions.`));
  }
  const best = Math.max(...item.scores.map(Math.abs), 1e-9);
  return h(
    "div", { class: "why" },
    h("p", {}, `Found by interest ${named[interest]}, which read these items of the history:`),
    h("ul", { class: "attended" }, answer.interests[interest].attended.slice(0, 5).map(({ item_id, weight }) =>
      h("li", {}, bar(weight, interest), `${percent(weight)} ${items.get(item_id)?.title ?? item_id}`))),
    h("p", {}, "Its score under each interest; the best counts:"),
    h("ul", { class: "scores" }, item.scores.map((score, number) =>
      h("li", { class: number === interest ? "best" : null }, bar(Math.max(score, 0) / best, number), `${score.toFixed(2)} ${named[number]}`))),
    h("p", { class: "quiet" }, `${id}${known ? `, ${known.interactions} interactions in the training log` : ""}`),
  );
}

function bar(share, interest) {
  const filled = h("span", { class: `filled ${colour(interest)}` });
  filled.style.width = `${(100 * Math.min(share, 1)).toFixed(1)}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, filled);
}
