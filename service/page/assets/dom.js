/** Elements, without inner HTML: whatever the server sends is shown as text. */

export const $ = (id) => document.getElementById(id);

/** An element. Attributes that are functions listen to the event of their name; null is left out. */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const number = (value) => value.toLocaleString("en");
export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
export const day = (text) => text.slice(0, 16).replace("T", " ");

/** A line through the values, the first on the left; null where there are none. */
export function sparkline(values, label, { width = 320, height = 64, from = 0 } = {}) {
  if (values.length < 2) return null;
  const low = from ?? Math.min(...values);
  const range = Math.max(...values) - low || 1;
  const points = values.map((value, i) => {
    const x = 4 + ((width - 8) * i) / (values.length - 1);
    return `${x.toFixed(1)},${(height - 4 - ((height - 8) * (value - low)) / range).toFixed(1)}`;
  });
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "sparkline", role: "img", "aria-label": label },
    svg("polyline", { points: points.join(" ") }),
    values.length > 40 ? null : points.map((point) => {
      const [cx, cy] = point.split(",");
      return svg("circle", { cx, cy, r: 3 });
    }),
  );
}
