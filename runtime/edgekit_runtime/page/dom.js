// Elements made and changed. Text only ever becomes text: nothing here can turn a word into markup.
// Refuses to touch what already says the same: most seconds, nothing on the page changes.

const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

/** An element with its attributes and children; a child that is no element is a text. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function say(element, text) {
  const words = String(text);
  if (element.textContent !== words) element.textContent = words;
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

const drawn = new WeakMap();

/** Put in place what `make` gives, but only where `facts` are others than the last time. */
export function redraw(element, facts, make) {
  const mark = JSON.stringify(facts);
  if (drawn.get(element) === mark) return;
  drawn.set(element, mark);
  element.replaceChildren(...[make(facts)].flat().filter((child) => child !== null));
}

export function row(head, ...cells) {
  return h("tr", {}, h("th", { scope: "row" }, head), ...cells.map((cell) => h("td", {}, cell)));
}

/** Tell a screen reader, once. */
export function announce(text) {
  say(by("announced"), text);
}
