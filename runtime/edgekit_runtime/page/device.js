// The machine under the models, what went wrong on it, and what was done to it.
// Refuses to show a sensor that is not there: what the machine does not tell has no tile.

import { by, h, redraw, row, say } from "./dom.js";
import { bytes, count, known, moment, percent, span } from "./numbers.js";

const [WARM_C, HOT_C, FULL] = [70, 80, 0.95];

const SLOWED = {
  temperature: "it is too hot",
  power: "it draws more power than it may",
  overcurrent: "it draws too much current",
  undervoltage: "its supply gives too low a voltage",
};

/** Why the machine is slowed down, in words; empty where it is not. */
export const slowed = (machine) => (machine.throttled ?? []).map((reason) => SLOWED[reason] ?? reason).join(", ");

/** The hottest of its sensors, as [name, °C]. */
export const hottest = (machine) => Object.entries(machine.temperatures ?? {}).sort((a, b) => b[1] - a[1])[0];

export const isHot = (celsius) => celsius >= HOT_C;

/** How full memory and disk are: [what, used, total]. */
export function filled(machine) {
  const parts = [
    ["Memory", machine.memory_total - machine.memory_available, machine.memory_total],
    ["Disk", machine.disk_total - machine.disk_free, machine.disk_total],
  ];
  return parts.filter(([, used, total]) => known(used) && total > 0);
}

export const isFull = (share) => share > FULL;

export function device(status) {
  const machine = status.machine ?? {};
  say(by("machine-words"), known(machine.uptime) ? `Up ${span(machine.uptime * 1000)}` : "");
  redraw(by("machine-tiles"), tiles(machine), (all) => all.map(tile));
  errors(status);
  past(status);
}

function tiles(machine) {
  const found = [];
  const add = (name, value, note = "", share = null, state = "good", tag = "") =>
    found.push({ name, value, note, share, state, tag });
  if (known(machine.cpu))
    add(
      "Processor",
      percent(machine.cpu, 0),
      [
        known(machine.cpus) && `of ${machine.cpus} cores`,
        known(machine.load) && `load ${count(Math.round(machine.load * 100) / 100)}`,
      ]
        .filter(Boolean)
        .join(", "),
      machine.cpu,
    );
  const hot = hottest(machine);
  if (hot)
    add(
      "Temperature",
      `${Math.round(hot[1])} °C`,
      hot[0],
      hot[1] / 100,
      isHot(hot[1]) ? "alarm" : hot[1] >= WARM_C ? "watch" : "good",
    );
  if (machine.reasons?.length || machine.throttled?.length) {
    const why = slowed(machine);
    add("Throttling", why ? "Slowed" : "None", why, null, why ? "alarm" : "good", why ? "Slowed down" : "");
  }
  const clocks = Object.values(machine.frequencies ?? {});
  if (clocks.length)
    add(
      "Clock",
      `${(Math.max(...clocks) / 1e9).toFixed(2)} GHz`,
      clocks.length > 1 ? `slowest ${(Math.min(...clocks) / 1e9).toFixed(2)} GHz` : "",
    );
  for (const [name, used, total] of filled(machine)) {
    const share = used / total;
    const own = name === "Memory" && known(machine.resident) ? `, this server ${bytes(machine.resident)}` : "";
    add(
      name,
      percent(share, 0),
      `${bytes(used)} of ${bytes(total)}${own}`,
      share,
      isFull(share) ? "alarm" : share > 0.85 ? "watch" : "good",
    );
  }
  for (const [name, watts] of Object.entries(machine.power ?? {})) add("Power", `${watts.toFixed(1)} W`, name);
  for (const gpu of machine.gpus ?? []) {
    const memory =
      known(gpu.memory_used) && gpu.memory_total > 0 ? `${bytes(gpu.memory_used)} of ${bytes(gpu.memory_total)}` : "";
    const more = [
      gpu.name,
      memory,
      known(gpu.temperature) && `${Math.round(gpu.temperature)} °C`,
      known(gpu.power) && `${gpu.power.toFixed(0)} W`,
    ];
    add(
      "GPU",
      percent(gpu.utilization, 0),
      more.filter(Boolean).join(", "),
      known(gpu.utilization) ? gpu.utilization : null,
    );
  }
  return found.length
    ? found
    : [{ name: "Machine", value: "–", note: "it tells nothing of itself", share: null, state: "good", tag: "" }];
}

function tile({ name, value, note, share, state, tag }) {
  const words = tag || { alarm: "High", watch: "Rising" }[state];
  return h(
    "div",
    {},
    h("dt", {}, name),
    h(
      "dd",
      {},
      h("b", {}, value),
      share === null ? null : bar(share, state),
      words ? h("span", { class: "tag", "data-state": state }, words) : null,
      h("span", {}, note),
    ),
  );
}

/** A bar as long as the share. */
export function bar(share, state = "good") {
  const inside = h("i");
  inside.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return h("span", { class: "fill", "data-state": state, "aria-hidden": "true" }, inside);
}

function errors(status) {
  redraw(by("errors-said"), [status.errors, new Date(status.now_ms).toDateString()], () =>
    status.errors.length
      ? table(
          "Errors, the last first",
          ["When", "What"],
          newest(status.errors).map((one) => row(time(one.when_ms, status.now_ms), one.what)),
          "said",
        )
      : h("p", {}, "Nothing went wrong since the start."),
  );
  const reasons = Object.entries(status.counters.refused).sort((a, b) => b[1] - a[1]);
  redraw(by("refused"), reasons, () =>
    reasons.length
      ? table(
          "Refused since the start",
          ["Reason", "Requests"],
          reasons.map(([why, times]) => row(why.replaceAll("_", " "), count(times))),
          "numbers",
        )
      : h("p", {}, "No request was refused."),
  );
}

function past(status) {
  redraw(by("history-said"), [status.history, new Date(status.now_ms).toDateString()], () =>
    status.history.length
      ? table(
          "History, the last first",
          ["When", "What", "Model", "Version", "Why"],
          newest(status.history).map((one) =>
            row(time(one.when_ms, status.now_ms), one.what, one.model ?? "", one.version ?? "", one.why ?? ""),
          ),
          "said",
        )
      : h("p", {}, "Nothing has changed since the start."),
  );
}

const newest = (all) => [...all].sort((a, b) => b.when_ms - a.when_ms);

const time = (ms, now) =>
  h("time", { class: "when", datetime: known(ms) ? new Date(ms).toISOString() : "" }, moment(ms, now));

function table(name, heads, rows, kind = "") {
  const caption = h("caption", { class: "unseen" }, name);
  const head = h("thead", {}, h("tr", {}, ...heads.map((words) => h("th", { scope: "col" }, words))));
  return h(
    "div",
    { class: "wide", role: "region", tabindex: "0", "aria-label": name },
    h("table", { class: kind }, caption, head, h("tbody", {}, ...rows)),
  );
}
