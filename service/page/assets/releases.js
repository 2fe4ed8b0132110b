/** The releases: metrics, what the gate says, and the way back. */

import { call } from "./api.js";
import { $, day, h, number, sparkline } from "./dom.js";
import { forgetRelease, listReleases } from "./explore.js";

export async function showReleases(setup, fail, renew) {
  const releases = await listReleases();
  if (!releases.length) {
    $("releases-content").replaceChildren(h("p", {}, "No release yet."));
    return;
  }
  const splits = [...new Set(releases.flatMap(({ metrics }) => Object.keys(metrics ?? {})))];
  const split = ["validation", "test"].find((name) => splits.includes(name)) ?? splits[0];
  const recalls = releases.map(({ metrics }) => metrics?.[split]?.["recall@50"]).filter((value) => value !== undefined);
  const line = sparkline(recalls.toReversed(), `recall@50 of ${recalls.length} releases, oldest first: ${recalls.toReversed().map((v) => v.toFixed(3)).join(", ")}`);
  $("releases-content").replaceChildren(...[
    line && h("figure", { class: "trend" }, line, h("figcaption", { class: "quiet" }, `recall@50 (${split}) of each release, oldest first, from 0 to ${Math.max(...recalls).toFixed(3)}`)),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of releases" }, table(releases, split, setup, fail, renew)),
  ].filter(Boolean));
}

function table(releases, split, setup, fail, renew) {
  const heads = ["Release", "Created (UTC)", "Model", "Items", `Recall@50 (${split})`, "NDCG@50", "Index recall", "Search", "Gate", ...(setup.admin ? ["Way back"] : [])];
  return h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, releases.map((release) => row(release, split, setup, fail, renew))));
}

function row(release, split, setup, fail, renew) {
  const name = h("th", { scope: "row" }, release.id, release.live ? h("span", { class: "tag" }, "live") : null);
  if (release.problem) return h("tr", {}, name, h("td", { colspan: setup.admin ? 9 : 8 }, release.problem));
  const metrics = release.metrics[split] ?? {};
  const shown = (value, digits = 4) => (value === undefined || value === null ? "–" : value.toFixed(digits));
  return h("tr", {}, name,
    h("td", {}, day(release.created)),
    h("td", {}, `${release.encoder}${release.interests ? `, K = ${release.interests}` : ""}`),
    h("td", { class: "number" }, number(release.items)),
    h("td", { class: "number" }, shown(metrics["recall@50"])),
    h("td", { class: "number" }, shown(metrics["ndcg@50"])),
    h("td", { class: "number" }, shown(release.index?.recall)),
    h("td", { class: "number" }, release.index_microseconds ? `${release.index_microseconds.toFixed(0)} µs` : "–"),
    h("td", {}, verdict(release)),
    setup.admin ? h("td", {}, release.live ? "" : back(release, fail, renew)) : null);
}

function verdict({ gate, parent }) {
  const beside = parent ? ` beside ${parent}` : "";
  if (!gate.length) return h("span", { class: "good" }, `✓ passes${beside}`);
  return h("details", {}, h("summary", {}, `✗ ${gate.length} ${gate.length > 1 ? "checks fail" : "check fails"}`), h("ul", {}, gate.map((sentence) => h("li", {}, sentence))));
}

function back(release, fail, renew) {
  const dialog = $("confirm-dialog");
  const roll = async () => {
    $("confirm-what").textContent = `${release.id} becomes the live release for everyone, on all workers.`;
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "yes") return;
    try {
      await call("POST", "page/rollback", { body: { to: release.id } });
      await renew();
      await forgetRelease();
    } catch (error) {
      fail(error);
    }
  };
  return h("button", { type: "button", "aria-label": `Roll back to ${release.id}`, click: roll }, "Roll back");
}
