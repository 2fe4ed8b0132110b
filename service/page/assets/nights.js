/** The last nightly runs. */

import { call } from "./api.js";
import { $, day, h, number } from "./dom.js";

const MARKS = { published: "✓", refused: "✗", failed: "✗" };

export async function showNights() {
  const { nights } = await call("GET", "page/nights");
  $("nights-content").replaceChildren(...(nights.length ? nights.map(card) : [
    h("p", {}, "No nightly run has left a report beside these releases yet. ", h("code", {}, "python -m training nightly --config night.toml"), " makes one."),
  ]));
}

function card(night) {
  const begun = day(new Date(1000 * night.begun).toISOString());
  const seconds = Object.values(night.seconds ?? {}).reduce((sum, value) => sum + value, 0);
  return h(
    "article", { class: `panel night ${night.outcome}` },
    h("h3", {}, `${MARKS[night.outcome] ?? "·"} ${night.night ?? ""}: ${night.outcome}`),
    h("p", {}, night.sentence ?? ""),
    (night.warnings ?? []).map((warning) => h("p", { class: "warning" }, `Warning: ${warning}`)),
    metrics(night),
    h("p", { class: "quiet" }, `Begun ${begun} UTC, ${seconds.toFixed(0)} s. Live afterwards: ${night.serves ?? "no release"}.`),
  );
}

function metrics(night) {
  const models = Object.entries(night.metrics);
  if (!models.length) return null;
  const names = Object.keys(models[0][1]);
  return h("table", {},
    h("caption", {}, `On the held-out day${night.users ? `, ${number(night.users)} users` : ""}`),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Model"), names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, models.map(([model, values]) =>
      h("tr", {}, h("th", { scope: "row" }, model), names.map((name) => h("td", { class: "number" }, values[name]?.toFixed(4) ?? "–"))))));
}
