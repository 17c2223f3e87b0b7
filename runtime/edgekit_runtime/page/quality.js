// Quality in the field: true labels that came later, the float shadow, the recorded inputs replayed.
// Refuses to compare what was not measured alike: only the build's own accuracy stands beside the field's.

import { whiskers } from "./charts.js";
import { by, h, redraw } from "./dom.js";
import { measured } from "./model.js";
import { between, count, interval, known, moment, percent } from "./numbers.js";

export function quality(model, now) {
  redraw(by("quality-said"), [model.quality, model.shadow, model.selftest, model.evidence], () => [
    ...field(model),
    ...shadow(model.shadow),
    h("p", {}, replayed(model.selftest, now)),
  ]);
}

function field({ quality: found, evidence }) {
  if (!found || !found.n)
    return [
      h(
        "p",
        {},
        "No true labels have come back. Where the server runs with --feedback, send them to /feedback with the id of the request: how often the model is right in the field then stands here.",
      ),
    ];
  const built = found.built && known(found.built.value) ? found.built : null;
  const [low, high] = (built && interval(built.value, built.n)) ?? [];
  const told = `In the field ${share(found.accuracy, found.low, found.high, `n = ${count(found.n)} answers whose true label came back`)} are right.`;
  const marks = [{ name: "In the field", low: found.low, value: found.accuracy, high: found.high, kind: "now" }];
  if (built) marks.push({ name: "At the build", low, value: built.value, high, kind: "was" });
  return [
    h("p", { class: "lead" }, told, " ", beside(built, low, high, evidence)),
    scale(marks, "Share of right answers"),
  ];
}

/** What the build measured, if it is of the same kind; else that it is not. */
function beside(built, low, high, evidence) {
  if (built) return `At the build ${share(built.value, low, high, `n = ${count(built.n)}`)} were.`;
  return evidence && known(evidence.value)
    ? `The build measured ${measured(evidence)}, which cannot be compared with labels.`
    : "The bundle brings nothing to compare that with.";
}

const share = (value, low, high, n) =>
  `${percent(value)} (${known(low) && known(high) ? `95 % interval ${between(low, high)}, ` : ""}${n})`;

function shadow(found) {
  if (!found || !found.n) return [];
  const words = `The model before it was made smaller (float) gives the same answer to ${share(found.agreement, found.low, found.high, `n = ${count(found.n)} requests that it was asked too`)}.`;
  const mark = { name: "Same answer", low: found.low, value: found.agreement, high: found.high, kind: "now" };
  return [h("p", { class: "lead" }, words), scale([mark], "Share of same answers")];
}

function scale(marks, what) {
  const { from, to, rows } = whiskers(marks);
  const [low, high] = [percent(from, 0), percent(to, 0)];
  return h(
    "figure",
    { class: "ranges" },
    ...rows.flatMap((svg, at) => [h("span", {}, marks[at].name), svg]),
    h("p", { class: "axis", "aria-hidden": "true" }, h("span", {}, low), h("span", {}, high)),
    h(
      "figcaption",
      {},
      `${what}, on an axis from ${low} to ${high}. The dot is what was seen, the line its 95 % interval.`,
    ),
  );
}

function replayed(found, now) {
  if (!found) return "The recorded inputs have not been replayed on this device yet.";
  const when = known(found.when_ms) ? ` (${moment(found.when_ms, now)})` : "";
  return found.passed
    ? `Self-test passed: this device gives the answers that were recorded at the build${when}.`
    : `Self-test failed: this device gives other answers than those recorded at the build${when}.`;
}
