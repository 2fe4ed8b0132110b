/** Starts the page, shows one of its parts, and asks for a key where one is needed. */

import { call, useKey } from "./api.js";
import { $, number } from "./dom.js";
import { startExploring } from "./explore.js";
import { showNights } from "./nights.js";
import { showReleases } from "./releases.js";
import { startTraffic, stopTraffic } from "./traffic.js";

const PARTS = ["try", "releases", "nights", "traffic"];
const THEMES = ["system", "light", "dark"];
const RETRY_MS = 1000;

let setup = null;

function fail(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
  if (error?.status === 401 || error?.status === 403) askForKey(error.message);
}

function askForKey(why) {
  const dialog = $("key-dialog");
  $("enter-key").hidden = false;
  if (dialog.open) return;
  $("key-why").textContent = `${why ? `${why} ` : ""}The key is kept in this page’s memory only: it is gone when the page is closed.`;
  dialog.showModal();
}

async function start() {
  try {
    setup = await call("GET", "page/setup");
  } catch (error) {
    fail(error);
    if (error.code === "not_ready" || error.status === 0) setTimeout(start, RETRY_MS);
    return;
  }
  fail(null);
  $("enter-key").hidden = !(setup.admin || setup.keys);
  describeRelease();
  await startExploring(setup, fail);
  showPart();
}

function describeRelease() {
  const interests = setup.interests === 1 ? "one interest" : `${setup.interests} interests`;
  $("serving").textContent = `${setup.release}: ${number(setup.items)} items, ${interests} of each user`;
  $("version").textContent = `re4 ${setup.version}`;
}

/** After a rollback. */
async function renew() {
  setup = await call("GET", "page/setup");
  describeRelease();
  await showReleases(setup, fail, renew);
}

async function showPart() {
  const wanted = location.hash.slice(1);
  if (wanted === "main") return; // the skip link
  const part = PARTS.includes(wanted) ? wanted : "try";
  for (const name of PARTS) $(name).hidden = name !== part;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (part !== "traffic") stopTraffic();
  if (!setup) return;
  try {
    if (part === "releases") await showReleases(setup, fail, renew);
    if (part === "nights") await showNights();
    if (part === "traffic") startTraffic(fail);
  } catch (error) {
    fail(error);
  }
}

$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  document.documentElement.dataset.theme = next;
  $("theme").textContent = `Theme: ${next}`;
});
$("enter-key").addEventListener("click", () => askForKey(""));
$("key-dialog").addEventListener("close", () => {
  const text = $("key").value;
  $("key").value = "";
  if ($("key-dialog").returnValue !== "use") return;
  useKey(text);
  if (setup) showPart();
  else start();
});
window.addEventListener("hashchange", showPart);
showPart();
start();
