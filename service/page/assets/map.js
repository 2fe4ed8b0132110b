/** The map: the items' directions on two axes, with the history, its interests and candidates. */

import { $, percent, svg } from "./dom.js";
import { colour } from "./interests.js";

const WIDTH = 600;
const HEIGHT = 520;
const MARGIN = 22;

let sample = { items: [], explained: [0, 0] };
let points = []; // [x, y, title] of all that is drawn

export function setSample(answer) {
  sample = answer;
  const [first, second] = answer.explained;
  $("map-note").textContent =
    `Two axes of many: they hold ${percent(first + second)} of how the items’ vectors differ, so what is close here need not be close.`;
}

/** answer: of /recommend; items: id -> what is known; interests: places of the K interests. */
export function drawMap(answer, items, sequence, interests, named, chosen) {
  const map = $("map");
  const shown = (answer?.items ?? []).filter((item) => chosen === null || item.interest === chosen);
  const history = [...new Set(sequence)].map((id) => items.get(id)).filter(Boolean);
  const found = shown.map((item) => ({ ...item, ...items.get(item.item_id) })).filter((item) => item.place);
  const all = [...sample.items, ...history, ...found].map((item) => item.place).concat(interests);
  if (!all.length) return;
  const [toX, toY] = [scale(all, 0, WIDTH), scale(all, 1, HEIGHT)];
  const at = (place) => [toX(place[0]), HEIGHT - toY(place[1])];
  points = [...sample.items, ...history, ...found].map((item) => [...at(item.place), item.title ?? item.item_id]);
  map.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  map.replaceChildren(
    svg("path", { class: "items", d: sample.items.map(({ place }) => `M${at(place).map((v) => v.toFixed(1)).join(" ")}h0`).join("") }),
    ...found.toReversed().map((item) => marked(at(item.place), item.interest)),
    ...history.map((item) => {
      const [x, y] = at(item.place);
      return svg("rect", { class: "taken", x: x - 6, y: y - 6, width: 12, height: 12 });
    }),
    ...interests.map((place, number) => (chosen === null || chosen === number ? diamond(at(place), number) : "")).filter(Boolean),
  );
  map.setAttribute("aria-label", `Map: ${history.length} items of the history, ${found.length} candidates, interests ${named.join(", ")}`);
}

function scale(places, axis, size) {
  const values = places.map((place) => place[axis]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return (value) => MARGIN + ((value - low) / (high - low || 1)) * (size - 2 * MARGIN);
}

function marked([x, y], interest) {
  return svg(
    "g", { class: `found ${colour(interest)}` },
    svg("circle", { cx: x, cy: y, r: 9 }),
    svg("text", { x, y: y + 4 }, interest === null ? "" : `${interest + 1}`),
  );
}

function diamond([x, y], number) {
  return svg(
    "g", { class: `interest ${colour(number)}` },
    svg("path", { d: `M${x} ${y - 15}l15 15l-15 15l-15-15z` }),
    svg("text", { x, y: y + 5 }, `${number + 1}`),
  );
}

$("map").addEventListener("pointermove", (event) => {
  const map = $("map");
  const box = map.getBoundingClientRect();
  const [x, y] = [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * HEIGHT];
  let [best, nearest] = [400, null];
  for (const point of points) {
    const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
    if (distance <= best) [best, nearest] = [distance, point];
  }
  $("map-pointed").textContent = nearest ? nearest[2] : "Point at a dot to see its title.";
});
