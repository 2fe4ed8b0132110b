/** Live traffic, from the counters of /metrics: rates are differences between two readings. */

import { call } from "./api.js";
import { $, h, number, percent, sparkline } from "./dom.js";

const INTERVAL_MS = 2000;
const KEPT = 60; // readings
const SAMPLE = /^(\w+)(?:\{(.*)\})? (\S+)/;
const OWN = /^\/(page\/.*|metrics|)$/;

let readings = [];
let timer = null;

export function startTraffic(fail) {
  stopTraffic();
  const read = async () => {
    try {
      if (!document.hidden) {
        readings = [...readings, parse(await call("GET", "metrics", { text: true }))].slice(-KEPT);
        draw();
        fail(null);
      }
    } catch (error) {
      fail(error);
    }
  };
  read();
  timer = setInterval(read, INTERVAL_MS);
}

export function stopTraffic() {
  clearInterval(timer);
  timer = null;
}

function parse(text) {
  const reading = { time: performance.now() / 1000, requests: 0, errors: 0, refused: 0, routes: new Map(), buckets: new Map(), quality: { share: 0, users: new Map(), rates: new Map(), difference: {} } };
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = SAMPLE.exec(line) ?? [];
    if (name === "re4_requests_total") {
      const [route, status] = [label(labels, "route"), Number(label(labels, "status"))];
      if (OWN.test(route)) continue;
      reading.requests += Number(value);
      if (status >= 500) reading.errors += Number(value);
      else if (status >= 400) reading.refused += Number(value);
      reading.routes.set(route, (reading.routes.get(route) ?? 0) + Number(value));
    } else if (name === "re4_request_seconds_bucket" && label(labels, "stage") === "total") {
      reading.buckets.set(Number(label(labels, "le").replace("+Inf", "Infinity")), Number(value));
    } else {
      readQuality(reading.quality, name, labels, Number(value));
    }
  }
  return reading;
}

/** Users and rates by variant: `live` at all times, `current` and `canary` while a canary runs. */
function readQuality(quality, name, labels, value) {
  if (Number.isNaN(value)) return; // what workers do not show any more
  const variant = name.startsWith("re4_live_") ? "live" : label(labels, "variant");
  if (name === "re4_canary_share") quality.share = value;
  else if (name === "re4_canary_difference") quality.difference[label(labels, "bound")] = value;
  else if (/^re4_(live|canary)_users$/.test(name)) quality.users.set(variant, value);
  else if (/^re4_(live|canary)_hit_rate$/.test(name)) {
    if (!quality.rates.has(variant)) quality.rates.set(variant, new Map());
    const rates = quality.rates.get(variant);
    rates.set(label(labels, "interest"), { ...rates.get(label(labels, "interest")), [label(labels, "bound")]: value });
  }
}

const label = (labels, name) => new RegExp(`(?:^|,)${name}="([^"]*)"`).exec(labels)?.[1] ?? "";

/** Upper bound of the bucket that holds the share, in ms; null without requests. */
export function quantile(before, now, share) {
  const counts = [...now].sort((a, b) => a[0] - b[0]).map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const bound = counts.find(([, count]) => count >= share * total)[0];
  return 1000 * bound;
}

const signed = (share) => `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`;

const interestsOf = (...of) => [...new Set(of.flatMap((rates) => [...rates.keys()]))].filter((name) => name !== "all").sort();
const nameOf = (interest) => (interest === "all" ? "All" : interest === "popular" ? "Popular" : `Interest ${interest}`);

/** Hit rate of the live release, with intervals. */
function liveTable({ users, rates }) {
  const live = rates.get("live");
  if (!live) return h("p", { class: "quiet", id: "live" }, "The hit rate of the live release is not known yet: users count once their time for a hit is over.");
  const rows = ["all", ...interestsOf(live)].map((interest) => {
    const { low, estimate, high } = live.get(interest);
    return h("tr", {}, h("th", { scope: "row" }, nameOf(interest)), h("td", { class: "number" }, percent(estimate)),
      h("td", { class: "number" }, percent(low)), h("td", { class: "number" }, percent(high)));
  });
  const heads = ["Found by", "Hit rate", "At least", "At most"];
  return h("table", { id: "live" },
    h("caption", {}, `Hit rate of the live release: which share of ${number(users.get("live"))} observed users took an item of their answer, with 95 % intervals`),
    h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows));
}

/** Hit rates of both variants; null without a canary. */
function canaryTable({ share, users, rates, difference }) {
  if (!share) return null;
  const variants = ["current", "canary"];
  const interests = interestsOf(...variants.map((variant) => rates.get(variant) ?? new Map()));
  const rate = (variant, interest) => {
    const value = rates.get(variant)?.get(interest)?.estimate;
    return h("td", { class: "number" }, value === undefined ? "–" : percent(value));
  };
  const rows = [["current", "Live release"], ["canary", "Canary"]].map(([variant, name]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, number(users.get(variant) ?? 0)),
      rate(variant, "all"), interests.map((interest) => rate(variant, interest))));
  const heads = ["Variant", "Users", "Hit rate", ...interests.map(nameOf)];
  const bounds = ["low", "estimate", "high"].map((bound) => difference[bound]);
  const known = variants.every((variant) => users.get(variant)) && bounds.every((bound) => bound !== undefined);
  return h("table", { id: "canary" },
    h("caption", {}, `Canary, for ${percent(share)} of the users. Hit rate: users who took an item of their answer`
      + (known ? `; difference ${signed(bounds[1])}, between ${signed(bounds[0])} and ${signed(bounds[2])}` : "; too few users yet for a difference")),
    h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows));
}

function draw() {
  const now = readings.at(-1);
  const before = readings[0];
  const seconds = now.time - before.time;
  const rate = (name) => (seconds ? (now[name] - before[name]) / seconds : 0);
  const rates = readings.slice(1).map((reading, i) => (reading.requests - readings[i].requests) / (reading.time - readings[i].time));
  const latency = (share) => {
    const ms = quantile(before.buckets, now.buckets, share);
    return ms === null ? "–" : ms === Infinity ? "over 1 s" : `≤ ${Number(ms.toPrecision(2))} ms`;
  };
  const figures = [
    ["Requests a second", rates.length ? rates.at(-1).toFixed(1) : "–"],
    ["Recommendations, p50", latency(0.5)],
    ["Recommendations, p99", latency(0.99)],
    ["Errors a second", rate("errors").toFixed(2)],
    ["Refused (4xx) a second", rate("refused").toFixed(2)],
  ];
  const line = sparkline(rates, `Requests a second over the last ${seconds.toFixed(0)} seconds, at most ${Math.max(0, ...rates).toFixed(1)}`, { width: 600, height: 120 });
  $("traffic-content").replaceChildren(...[
    h("dl", { class: "figures" }, figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    line && h("figure", { class: "trend" }, line, h("figcaption", { class: "quiet" }, `Requests a second, the last ${seconds.toFixed(0)} s; at most ${Math.max(0, ...rates).toFixed(1)}`)),
    liveTable(now.quality),
    canaryTable(now.quality),
    h("table", {},
      h("caption", {}, "Requests since the server started"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Route"), h("th", { scope: "col" }, "Requests"))),
      h("tbody", {}, [...now.routes].sort((a, b) => b[1] - a[1]).map(([route, count]) =>
        h("tr", {}, h("th", { scope: "row" }, route), h("td", { class: "number" }, number(count)))))),
  ].filter(Boolean));
}
