// Small pictures: lines over the last minutes, bars beside bars, an interval on its scale. SVG, no library.
// Refuses to be the only place where something is told: beside each picture stand its numbers.

import { attribute, s } from "./dom.js";
import { known } from "./numbers.js";

const [WIDE, HIGH] = [300, 64];
const GAP_MS = 12000;

/** The next larger of 1, 2, 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

/** A chart of `names.length` lines in `svg`; gives the function that draws points {t, name: value, ...}. */
export function lines(svg, names, spanMs) {
  const area = s("path", { class: "area" });
  const paths = names.map((name) => s("path", { class: `line ${name}` }));
  attribute(svg, "viewBox", `0 0 ${WIDE} ${HIGH}`);
  attribute(svg, "preserveAspectRatio", "none");
  svg.replaceChildren(area, ...paths);
  return (points, now) => {
    const most = Math.max(0, ...points.flatMap((point) => names.map((name) => point[name] ?? 0)));
    const top = ceiling(most);
    const x = (point) => (WIDE - ((now - point.t) / spanMs) * WIDE).toFixed(1);
    const y = (value) => (HIGH - 1 - (value / top) * (HIGH - 3)).toFixed(1);
    names.forEach((name, at) => paths[at].setAttribute("d", path(points, name, x, y)));
    area.setAttribute("d", names.length === 1 ? filled(points, names[0], x, y) : "");
    return top;
  };
}

function path(points, name, x, y) {
  let [drawn, last] = ["", null];
  for (const point of points) {
    const value = point[name];
    if (known(value)) {
      drawn += `${last !== null && point.t - last < GAP_MS ? "L" : "M"}${x(point)} ${y(value)}`;
      last = point.t;
    }
  }
  return drawn;
}

function filled(points, name, x, y) {
  return path(points, name, x, y)
    .split("M")
    .filter(Boolean)
    .map((piece) => {
      const ends = piece.split("L").map((pair) => pair.split(" ")[0]);
      return `M${ends[0]} ${HIGH}L${piece}L${ends[ends.length - 1]} ${HIGH}Z`;
    })
    .join("");
}

/** Shares by bin: a wide pale bar for what was, a narrow dark one in it for what is. */
export function bars(before, now) {
  const most = Math.max(1e-9, ...before, ...now);
  const step = 100 / Math.max(before.length, now.length, 1);
  const bar = (kind, value, at, left, wide) => {
    const high = (Math.max(0, value) / most) * 39;
    const place = {
      x: (at * step + left * step).toFixed(2),
      y: (40 - high).toFixed(2),
      width: (wide * step).toFixed(2),
    };
    return s("rect", { class: kind, ...place, height: high.toFixed(2) });
  };
  return s(
    "svg",
    { class: "bars", viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" },
    ...before.map((value, at) => bar("was", value, at, 0.06, 0.88)),
    ...now.map((value, at) => bar("now", value, at, 0.3, 0.4)),
    s("path", { class: "ground", d: "M0 40H100" }),
  );
}

/** Intervals [{low, value, high, kind}], a picture each, all on one axis `from` one round share `to` another. */
export function whiskers(found) {
  const ends = found.flatMap((one) => [one.low, one.value, one.high]).filter(known);
  const [from, last] = [Math.floor(Math.min(...ends) * 20) / 20, Math.ceil(Math.max(...ends) * 20) / 20];
  const to = Math.max(last, from + 0.05);
  const x = (value) => `${(((value - from) / (to - from)) * 100).toFixed(2)}%`;
  const rows = found.map(({ low, value, high, kind }) =>
    s(
      "svg",
      { class: "whiskers", height: 16, "aria-hidden": "true" },
      known(low) && known(high)
        ? s("line", { class: `range ${kind}`, x1: x(low), x2: x(high), y1: 8, y2: 8 })
        : null,
      s("circle", { class: kind, cx: x(value), cy: 8, r: kind === "was" ? 4 : 5 }),
    ),
  );
  return { from, to, rows };
}
