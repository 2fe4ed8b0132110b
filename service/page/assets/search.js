/** The search of titles: a combobox whose choices are added to the history. */

import { call, latest } from "./api.js";
import { $, h } from "./dom.js";

/** choose: takes a chosen item. fail: takes an error. */
export function startSearch(choose, fail) {
  const input = $("search");
  const list = $("found");
  let found = [];
  let active = -1;

  const find = latest((signal, text) => call("GET", `page/search?q=${encodeURIComponent(text)}&limit=12`, { signal }));

  function show(items) {
    found = items;
    active = items.length ? 0 : -1;
    list.replaceChildren(...items.map((item, position) =>
      h(
        "li",
        {
          role: "option", id: `found-${position}`, "aria-selected": String(position === active),
          mousedown: (event) => { event.preventDefault(); pick(position); },
        },
        h("span", { class: "title" }, item.title ?? item.item_id), h("span", { class: "quiet" }, item.category ?? item.item_id),
      )));
    if (!items.length && input.value.trim()) list.append(h("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No such item"));
    list.hidden = !input.value.trim();
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark();
  }

  function mark() {
    [...list.children].forEach((option, position) => option.setAttribute("aria-selected", String(position === active)));
    if (active < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", `found-${active}`);
    list.children[active]?.scrollIntoView({ block: "nearest" });
  }

  function pick(position) {
    const item = found[position];
    input.value = "";
    show([]);
    if (item) choose(item);
  }

  input.addEventListener("input", async () => {
    try {
      const answer = input.value.trim() ? await find(input.value) : { items: [] };
      if (answer) show(answer.items);
    } catch (error) {
      fail(error);
    }
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length) {
      active = (active + step + found.length) % found.length;
      mark();
    } else if (event.key === "Enter" && active >= 0) {
      pick(active);
    } else if (event.key === "Escape") {
      input.value = "";
      show([]);
    } else return;
    event.preventDefault();
  });
  input.addEventListener("blur", () => { list.hidden = true; input.setAttribute("aria-expanded", "false"); });
  input.addEventListener("focus", () => { if (found.length) show(found); });
}
