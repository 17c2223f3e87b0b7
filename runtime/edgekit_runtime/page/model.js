// One model: what it is, what the build proved, how many requests it answers and how fast.
// Refuses to call a number live that nothing came for: without requests there are no percentiles.

import { lines } from "./charts.js";
import { attribute, by, h, redraw, row, say, show } from "./dom.js";
import { SPAN_MS } from "./memory.js";
import { NONE, between, count, duration, interval, known, mean, percent, quantileWords, span } from "./numbers.js";

const SHARES = ["top1", "top5", "top-1", "top-5", "agreement", "accuracy"];
const METRICS = {
  top1: "top-1 accuracy",
  top5: "top-5 accuracy",
  mae: "mean absolute error",
  cosine: "cosine similarity",
  agreement: "share of same answers",
};
/** Of these the reference is the model itself, which is like itself. */
const LIKENESS = ["cosine", "agreement"];
const TIMES = { request: "Whole request", queue: "Waiting in the queue", compute: "In the engine" };
const OUTCOMES = {
  answered: "Answered",
  failed: "Failed",
  rejected: "Refused: the queue was full",
  late: "Given up: deadline over",
  cancelled: "Given up by the client",
};

const drawRate = lines(by("rate-lines"), ["rate"], SPAN_MS);
const drawTime = lines(by("time-lines"), ["p50", "p99"], SPAN_MS);

export const key = (model) => `${model.name}/${model.version}`;

/** The table of all models, where there are several; `choose` is called with the key of one. */
export function models(all, picked, memory, choose) {
  show(by("models"), all.length > 1);
  if (all.length < 2) return;
  say(by("models-count"), `${all.length} are served; choose one to see it below.`);
  const rows = by("models-rows");
  redraw(rows, all.map(key), () =>
    all.map((one) => row(pick(key(one), one.name, choose), one.version, "", "", "", "")),
  );
  all.forEach((one, at) => {
    const [cells, recent] = [rows.children[at].children, memory.recent(one)];
    attribute(cells[0].firstChild, "aria-pressed", one === picked);
    say(cells[2], one.paused ? "opening" : rate(recent));
    say(cells[3], recent ? quantileWords(recent.request, 0.99) : NONE);
    say(cells[4], count(one.requests.failed));
    say(cells[5], one.drift ? (one.drift.alarm ? "Alarm" : "none") : one.unwatched ? "not watched" : NONE);
  });
}

function pick(name, words, choose) {
  return h("button", { type: "button", class: "plain", "aria-pressed": "false", onclick: () => choose(name) }, words);
}

/** The model that was chosen. */
export function model(one, memory, now) {
  const recent = memory.recent(one);
  say(by("model-name"), one.name);
  say(by("model-version"), `Version ${one.version}`);
  redraw(by("model-facts"), facts(one), (all) =>
    all.flatMap(([name, words]) => [h("dt", {}, name), h("dd", {}, words)]),
  );
  say(by("evidence"), evidence(one));
  say(by("rate"), rate(recent));
  say(
    by("rate-note"),
    `${count(one.requests.answered)} answered in ${span(now - one.loaded_ms)}, ${count(one.requests.waiting)} waiting`,
  );
  for (const [id, q] of [
    ["p50", 0.5],
    ["p90", 0.9],
    ["p99", 0.99],
  ])
    say(by(id), recent ? quantileWords(recent.request, q) : NONE);
  charts(memory.points(one), now, recent);
  tables(one, recent, memory.recent(one, 60000));
}

const rate = (recent) => (recent ? count(recent.answered / recent.seconds) : NONE);

function facts(one) {
  const shape = (spec) => `${spec.name} ${spec.datatype} [${spec.shape.map((size) => size ?? "any").join(", ")}]`;
  return [
    ["Engine", one.engine],
    ["Precision", one.precision],
    ["Format", one.format],
    ["Built for", one.target],
    [
      "Takes",
      [{ image: "a photo", audio: "a sound", text: "a text" }[one.takes], one.inputs.map(shape).join("; ")]
        .filter(Boolean)
        .join(", as "),
    ],
    ["Gives", one.outputs.map(shape).join("; ") + (one.labels ? `, ${count(one.labels)} labels` : "")],
  ].filter(([, words]) => words);
}

/** What the build measured, as a sentence. */
function evidence({ evidence: found, paused }) {
  const opening = paused ? "The engine is being opened; requests wait. " : "";
  if (!found || !known(found.value)) return `${opening}The bundle brings no evidence of its quality.`;
  const { metric, reference, drop, low, high } = found;
  if (LIKENESS.includes(metric))
    return `${opening}When it was built, its answers were held against those of the model it was made from: ${measured(found)}. 1 would be the same.`;
  const proven = `${opening}When it was built: ${measured(found)}`;
  if (!known(drop)) return `${proven}.`;
  const share = SHARES.includes(metric);
  const lost = (value) => (share ? `${(value * 100).toFixed(2)}` : count(value));
  const sure = known(low) && known(high) ? `, 95 % interval ${lost(low)} to ${lost(high)}` : "";
  return `${proven}. The model it was made from: ${share ? percent(reference) : count(reference)} (lost: ${lost(drop)}${share ? " points" : ""}${sure}).`;
}

/** The metric and its value, with the interval where there is one, and of how many samples. */
export function measured({ metric, value, reference, low, high, n }) {
  const share = SHARES.includes(metric);
  let ends = share ? interval(value, n) : null;
  if (LIKENESS.includes(metric) && [reference, low, high].every(known)) ends = [reference - high, reference - low];
  const range = ends ? `95 % interval ${share ? between(...ends) : ends.map(count).join(" to ")}, ` : "";
  return `${METRICS[metric] ?? metric} ${share ? percent(value) : count(value)} (${range}n = ${count(n)})`;
}

function charts(points, now, recent) {
  const most = drawRate(points, now);
  say(by("rate-top"), `0 to ${count(most)} /s`);
  say(by("time-top"), `0 to ${duration(drawTime(points, now))}`);
  const spoken = recent ? `now ${count(recent.answered / recent.seconds)}` : "nothing yet";
  attribute(by("rate-lines"), "aria-label", `Requests per second over the last five minutes: ${spoken}`);
  const words = recent
    ? `p50 ${quantileWords(recent.request, 0.5)}, p99 ${quantileWords(recent.request, 0.99)}`
    : "nothing yet";
  attribute(by("time-lines"), "aria-label", `Time to answer over the last five minutes: now ${words}`);
}

function tables(one, recent, minute) {
  const [times, outcomes] = [by("times"), by("outcomes")];
  redraw(times, [], () => Object.values(TIMES).map((words) => row(words, NONE, NONE, NONE, NONE)));
  Object.keys(TIMES).forEach((name, at) => {
    const [cells, found] = [times.children[at].children, recent?.[name]];
    say(cells[1], found ? duration(mean(found)) : NONE);
    [0.5, 0.9, 0.99].forEach((q, place) => say(cells[place + 2], found ? quantileWords(found, q) : NONE));
  });
  redraw(outcomes, [], () =>
    [...Object.values(OUTCOMES), "Rows in a run of the engine"].map((words) => row(words, NONE, NONE)),
  );
  Object.keys(OUTCOMES).forEach((name, at) => {
    const cells = outcomes.children[at].children;
    say(cells[1], count(one.requests[name]));
    say(cells[2], minute ? count(minute[name]) : NONE);
  });
  say(outcomes.lastChild.children[1], one.executions ? count(one.samples / one.executions) : NONE);
  say(outcomes.lastChild.children[2], "");
}
