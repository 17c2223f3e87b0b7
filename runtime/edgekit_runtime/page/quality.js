// Quality in the field: true labels that came later, the float shadow, the recorded inputs replayed.
// Refuses to compare what was not measured alike: only the build's own accuracy stands beside the field's.

import { whiskers } from "./charts.js";
import { by, h, redraw } from "./dom.js";
import { count, interval, known, moment, percent } from "./numbers.js";

export function quality(model, now) {
  redraw(by("quality-said"), [model.quality, model.shadow, model.selftest], () => [
    ...field(model.quality),
    ...shadow(model.shadow),
    h("p", {}, replayed(model.selftest, now)),
  ]);
}

function field(found) {
  if (!found || !found.n)
    return [
      h(
        "p",
        {},
        "No true labels have come back. Where the server runs with --feedback, send them to /feedback with the id of the request: the accuracy in the field then stands here beside the build's.",
      ),
    ];
  const built = found.built && known(found.built.value) ? found.built : null;
  const range = built ? interval(built.value, built.n) : null;
  const told = h(
    "p",
    { class: "lead" },
    `${percent(found.accuracy)} right (95 % interval ${percent(found.low)} to ${percent(found.high)}) of ${count(found.n)} answers whose true label came back`,
    built ? `; ${percent(built.value)} of ${count(built.n)} when it was built.` : ".",
  );
  const marks = [{ low: found.low, value: found.accuracy, high: found.high, kind: "now" }];
  if (built) marks.push({ low: range?.[0], value: built.value, high: range?.[1], kind: "was" });
  return [told, ...scale(marks, built ? ["Field", "Built"] : ["Field"])];
}

function shadow(found) {
  if (!found || !found.n) return [];
  const words = `The float model agrees with ${percent(found.agreement)} (95 % interval ${percent(found.low)} to ${percent(found.high)}) of ${count(found.n)} answers that it was asked for too.`;
  return [
    h("p", { class: "lead" }, words),
    ...scale([{ low: found.low, value: found.agreement, high: found.high, kind: "now" }], ["Agreement"]),
  ];
}

function scale(marks, names) {
  const { from, to, svg } = whiskers(marks);
  const legend =
    names.length > 1
      ? h("p", { class: "fine" }, "Above: in the field. Below: when it was built. The lines are 95 % intervals.")
      : null;
  return [
    h(
      "figure",
      {},
      svg,
      h("p", { class: "axis", "aria-hidden": "true" }, h("span", {}, percent(from)), h("span", {}, percent(to))),
    ),
    legend,
  ];
}

function replayed(found, now) {
  if (!found) return "The recorded inputs have not been replayed on this device yet.";
  const when = known(found.when_ms) ? ` (${moment(found.when_ms, now)})` : "";
  return found.passed
    ? `Self-test passed: this device gives the answers that were recorded at the build${when}.`
    : `Self-test failed: this device gives other answers than those recorded at the build${when}.`;
}
