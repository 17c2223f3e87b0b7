// What the model answered, as labels with bars or as numbers; what went wrong, with what to do.
// Refuses to name a class where the answer has none: then the numbers are shown as they are.

import { bar } from "./device.js";
import { h, row } from "./dom.js";
import { count, duration, percent } from "./numbers.js";

const FIRST = 8;

/** The elements that tell a reply. */
export async function answer(reply, seconds) {
  const text = await reply.text();
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    told = {};
  }
  if (!reply.ok)
    return failure(told.error ?? `The device answered ${reply.status}`, told.hint ?? hints[reply.status] ?? "");
  const top = told.parameters?.top;
  const took = h("p", { class: "fine" }, `${duration(seconds)} from here to the device, through the model and back.`);
  return Array.isArray(top) && top.length ? [...labels(top), took] : [numbers(told.outputs ?? []), took];
}

const hints = { 401: "reload the page: the browser then asks for the token", 403: "use a token with the scope infer" };

export function failure(what, hint) {
  return h("div", { class: "failed" }, h("p", {}, what), hint ? h("p", { class: "fine" }, hint) : null);
}

function labels(top) {
  const rows = top.map(({ label, score }) =>
    h("li", {}, h("span", {}, label), h("span", {}, percent(score)), bar(score)),
  );
  return [h("p", { class: "best" }, top[0].label), h("ol", { class: "scores" }, ...rows)];
}

function numbers(outputs) {
  const head = h("tr", {}, ...["Output", "Type", "Shape", "Values"].map((words) => h("th", { scope: "col" }, words)));
  const rows = outputs.map(({ name, datatype, shape, data }) =>
    row(name, datatype, `[${shape.join(", ")}]`, values(data ?? [])),
  );
  return h(
    "div",
    { class: "wide", role: "region", tabindex: "0", "aria-label": "Outputs" },
    h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)),
  );
}

function values(data) {
  const all = data.flat(Infinity);
  const some = all.slice(0, FIRST).map((one) => (typeof one === "number" ? count(one) : String(one)));
  return some.join(", ") + (all.length > FIRST ? `, ... (${count(all.length)} in all)` : "");
}
