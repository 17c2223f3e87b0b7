// Drift: each feature's distribution now beside the one that the build recorded.
// Refuses to tell an alarm by colour alone: it is a word and a shape too.

import { bars } from "./charts.js";
import { by, h, redraw, row, say, show } from "./dom.js";
import { count, few, known, moment, percent } from "./numbers.js";

export function drift({ drift: found }, now) {
  for (const id of ["drift-legend", "features", "drift-table"]) show(by(id), Boolean(found?.features.length));
  say(by("drift-said"), said(found, now));
  if (!found) return;
  by("drift").dataset.state = found.alarm ? "alarm" : "good";
  const features = [...found.features].sort((a, b) => b.alarm - a.alarm);
  redraw(by("features"), features, (all) => all.map(card));
  redraw(by("features-rows"), features, (all) => all.map(numbers));
}

function said(found, now) {
  if (!found)
    return "Nothing to compare with: the bundle holds no record of what it was built on, or the watch is switched off.";
  if (!found.features.length || !found.features.some((one) => one.now.some((share) => share > 0)))
    return `Nothing to compare yet: ${count(found.n)} samples came.`;
  const moved = found.features.filter((one) => one.alarm).map((one) => one.words);
  const all = `${count(found.n)} samples were looked at.`;
  if (!found.alarm) return `No drift. ${all}`;
  const when = known(found.since_ms) ? ` since ${moment(found.since_ms, now)}` : "";
  return `Drift alarm${when}: ${few(moved, 5) || "all features together"}. ${all}`;
}

function card(one) {
  const state = one.alarm ? "alarm" : "good";
  const far = `KS ${count(one.ks)}, alarm at ${count(one.limit)}; PSI ${count(one.psi)}`;
  return h(
    "li",
    { "data-state": state },
    h(
      "h3",
      {},
      h("span", {}, one.words),
      h("span", { class: "tag", "data-state": state }, one.alarm ? "Shifted" : "As built"),
    ),
    h("div", { class: "frame" }, bars(one.baseline, one.now)),
    h("div", { class: "ends", "aria-hidden": "true" }, ...ends(one).map((words) => h("span", {}, words))),
    h("p", { class: "unseen" }, spoken(one)),
    h("p", {}, far),
  );
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
    ? `Most changed: ${bin(one, at)}, from ${percent(one.baseline[at])} to ${percent(one.now[at])} of the samples.`
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
  return row(one.words, one.alarm ? "Shifted" : "As built", count(one.psi), count(one.ks), count(one.limit));
}
