// Drift: each feature's distribution now beside the one that the build recorded; or why nobody watches it.
// Refuses to tell an alarm by colour alone: it is a word and a shape too.

import { bars } from "./charts.js";
import { by, h, redraw, row, say, show } from "./dom.js";
import { explained, fading, moved, ordered, waits } from "./features.js";
import { count, few, known, moment, percent } from "./numbers.js";

const UNWATCHED = {
  "no baseline":
    "the bundle holds no record of what the model was built on, so there is nothing to compare with. A build with --data records it.",
  "switched off": "the server was started with --no-drift.",
};

/** Why a model's drift is not watched, in words; empty where it is. */
export const unwatched = ({ drift: found, unwatched: why }) => (found || !why ? "" : (UNWATCHED[why] ?? why));

export function drift(model, now) {
  const { drift: found } = model;
  for (const id of ["drift-legend", "features", "drift-table"]) show(by(id), Boolean(found?.features.length));
  say(by("drift-said"), said(model, now));
  by("drift").dataset.state = found ? (found.alarm ? "alarm" : "good") : "open";
  if (!found) return;
  const features = ordered(found.features);
  redraw(by("features"), features, (all) => all.map(card));
  redraw(by("features-rows"), features, (all) => all.map(numbers));
}

function said(model, now) {
  const { drift: found } = model;
  if (unwatched(model)) return `Drift is not watched: ${unwatched(model)}`;
  if (!found) return "Nothing to compare yet: no answer was looked at.";
  if (found.features.every(waits)) return `Nothing to compare yet: ${count(found.n)} samples came.`;
  const all = `${count(found.n)} samples were looked at.`;
  if (!found.alarm) return `No drift. ${all}`;
  const when = known(found.since_ms) ? ` since ${moment(found.since_ms, now)}` : "";
  return `Drift alarm${when}: ${alarming(found.features, 5)}. ${all}`;
}

/** The features of an alarm: those that have shifted, and those that had. */
export function alarming(features, most) {
  const [now, before] = moved(features);
  const back = before.length ? `${few(before, most)} ${before.length > 1 ? "were" : "was"} shifted, coming back` : "";
  return [few(now, most), back].filter(Boolean).join("; ") || "all features together";
}

function state(one) {
  if (one.alarm) return fading(one) ? ["watch", "Coming back"] : ["alarm", "Shifted"];
  return waits(one) ? ["open", "No samples yet"] : ["good", "As built"];
}

function card(one) {
  const [mark, words] = state(one);
  return h(
    "li",
    { "data-state": mark },
    h("h3", {}, h("span", {}, one.words), h("span", { class: "tag", "data-state": mark }, words)),
    h("div", { class: "frame" }, bars(one.baseline, one.now)),
    h("div", { class: "ends", "aria-hidden": "true" }, ...ends(one).map((words) => h("span", {}, words))),
    h(
      "p",
      {},
      h("span", { class: "unseen" }, spoken(one)),
      `${far(one)} `,
      h("span", { class: "meaning" }, explained(one)),
    ),
  );
}

/** How far it is from an alarm. */
function far(one) {
  if (waits(one)) return "Nothing came yet.";
  if (one.limit >= 1) return `Moved by ${percent(one.ks, 0)}; too few samples came for an alarm.`;
  const [by, limit] = [percent(one.ks, 0), percent(one.limit, 0)];
  if (fading(one)) return `Was shifted; now ${by} apart, below the alarm at ${limit}. It ends when that lasts.`;
  if (one.alarm) return `Moved by ${by}, beyond the alarm at ${limit}.`;
  return one.ks > one.limit ? `Moved by ${by}: no chance, but slight.` : `Moved by ${by}; alarm at ${limit}.`;
}

function ends({ edges, labels, baseline }) {
  if (edges.length && count(edges[0]) === count(edges[edges.length - 1]))
    return [`under ${count(edges[0])}`, `${count(edges[0])}`, `over ${count(edges[0])}`];
  if (edges.length) return [`up to ${count(edges[0])}`, `over ${count(edges[edges.length - 1])}`];
  return baseline.length > 1 ? [labels[0] ?? "", labels[baseline.length - 1] ?? ""] : [labels[0] ?? ""];
}

/** The bar that moved most, for who does not see it. */
function spoken(one) {
  const moves = one.baseline.map((share, at) => (one.now[at] ?? 0) - share);
  const at = moves.reduce((best, move, place) => (Math.abs(move) > Math.abs(moves[best]) ? place : best), 0);
  return moves.length
    ? `Most changed: ${bin(one, at)}, from ${percent(one.baseline[at])} to ${percent(one.now[at])} of the samples. `
    : "";
}

function bin({ edges, labels }, at) {
  if (!edges.length) return labels[at] ?? `class ${at}`;
  if (at === 0) return `up to ${count(edges[0])}`;
  return at < edges.length
    ? `${count(edges[at - 1])} to ${count(edges[at])}`
    : `over ${count(edges[edges.length - 1])}`;
}

function numbers(one) {
  return row(one.words, state(one)[1], count(one.psi), count(one.ks), count(one.limit));
}
