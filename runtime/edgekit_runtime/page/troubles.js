// What needs a look, worst first: the one sentence at the top of the page, and those below it.
// Refuses to cry for what is over: counts are those of the last minute.

import { filled, hottest, isFull, isHot, slowed } from "./device.js";
import { alarming, unwatched } from "./drift.js";
import { count, interval, known, moment, percent } from "./numbers.js";

export function troubles(status, memory) {
  const found = status.models.flatMap((model) => ofModel(model, memory.recent(model, 60000), status.now_ms));
  return [...found, ...ofMachine(status.machine ?? {})].sort((a, b) => rank(a) - rank(b));
}

const some = (number) => (number === 1 ? "1 request" : `${count(number)} requests`);

const rank = ({ state }) => ["alarm", "watch", "open"].indexOf(state);

function ofModel(model, minute, now) {
  const { name, drift, quality, selftest } = model;
  const found = [];
  if (drift?.alarm) {
    const when = known(drift.since_ms) ? `Since ${moment(drift.since_ms, now)}, what` : "What";
    found.push({
      state: "alarm",
      where: "drift",
      title: `${name}: drift alarm`,
      words: `${name}: drift. ${when} comes in or goes out is not what the model was built on: ${alarming(drift.features, 3)}.`,
    });
  }
  if (selftest && !selftest.passed)
    found.push({
      state: "alarm",
      where: "quality",
      title: `${name}: self-test failed`,
      words: `${name}: the self-test failed: this device gives other answers than those recorded at the build.`,
    });
  if (worse(quality))
    found.push({
      state: "alarm",
      where: "quality",
      title: `${name}: worse than it was built`,
      words: `${name}: ${percent(quality.accuracy)} right in the field, ${percent(quality.built.value)} when it was built: more than chance explains.`,
    });
  if (minute?.failed)
    found.push({
      state: "watch",
      where: "errors",
      words: `${name}: ${some(minute.failed)} failed in the last minute.`,
    });
  if (minute?.rejected)
    found.push({
      state: "watch",
      where: "model",
      words: `${name}: ${some(minute.rejected)} found the queue full in the last minute.`,
    });
  if (minute?.late)
    found.push({
      state: "watch",
      where: "model",
      words: `${name}: ${some(minute.late)} ran out of time in the last minute.`,
    });
  if (unwatched(model))
    found.push({
      state: "open",
      where: "drift",
      title: name,
      words: `${name}: drift is not watched: ${unwatched(model)}`,
    });
  return found;
}

/** Whether both intervals lie apart. */
function worse(quality) {
  if (!quality?.n || !quality.built || !known(quality.high)) return false;
  const built = interval(quality.built.value, quality.built.n);
  return built !== null && quality.high < built[0];
}

function ofMachine(machine) {
  const found = [];
  const add = (words) => found.push({ state: "watch", where: "machine", words });
  const [why, hot] = [slowed(machine), hottest(machine)];
  if (why) add(`The processor is slowed down: ${why}.`);
  if (hot && isHot(hot[1])) add(`The machine is hot: ${Math.round(hot[1])} °C (${hot[0]}).`);
  for (const [name, used, total] of filled(machine)) {
    if (isFull(used / total)) add(`${name}: ${percent(used / total, 0)} is used.`);
  }
  return found;
}
