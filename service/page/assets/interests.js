/** How an interest is shown: by its number and the category it attends to most, and a colour. */

import { h, percent } from "./dom.js";

const COLOURS = 8; // in style.css; the number tells two of one colour apart

export const colour = (interest) => (interest === null ? "popular" : `i${interest % COLOURS}`);

/** The name of each interest. items: id -> what is known of it. */
export function names(interests, items) {
  return interests.map(({ attended }, number) => {
    const weights = new Map();
    for (const { item_id, weight } of attended) {
      const category = items.get(item_id)?.category;
      if (category) weights.set(category, (weights.get(category) ?? 0) + weight);
    }
    const [best] = [...weights].sort((a, b) => b[1] - a[1]);
    return best ? `${number + 1} · ${best[0]}` : `${number + 1}`;
  });
}

export function badge(interest, named) {
  const label = interest === null ? "popular" : (named[interest] ?? `${interest + 1}`);
  return h("span", { class: `badge ${colour(interest)}` }, h("span", { class: "swatch", "aria-hidden": "true" }), label);
}

/** The interests as buttons that show the candidates of one alone. */
export function chips(interests, named, chosen, choose) {
  return interests.map(({ share }, number) =>
    h("li", {}, h(
      "button",
      {
        type: "button", class: `chip ${colour(number)}`, "aria-pressed": String(chosen === number),
        click: () => choose(chosen === number ? null : number),
      },
      h("span", { class: "swatch", "aria-hidden": "true" }), `${named[number]}: ${percent(share)}`,
    )),
  );
}
