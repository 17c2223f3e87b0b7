// Numbers for people, and what histograms tell: pure functions, no document.
// Refuses to show a number that is none: what is not known is a dash.

export const NONE = "–";

const plain = new Intl.NumberFormat("en");

export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Three digits that count, or whole thousands in groups. */
export function count(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) >= 1e7) return `${(value / 1e6).toPrecision(3)} M`;
  if (Number.isInteger(value) || Math.abs(value) >= 100) return plain.format(Math.round(value));
  if (Math.abs(value) < 1e-6) return "0";
  return String(Number(value.toPrecision(Math.abs(value) < 0.001 ? 2 : 3)));
}

/** Seconds in the unit that fits: 312 µs, 4.07 ms, 1.20 s. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds === 0) return "0 ms";
  const [size, unit] = seconds < 0.001 ? [1e6, "µs"] : seconds < 1 ? [1e3, "ms"] : [1, "s"];
  const amount = seconds * size;
  return `${amount >= 100 ? Math.round(amount) : amount.toPrecision(amount < 1 ? 2 : 3)} ${unit}`;
}

export function percent(share, digits = 1) {
  return known(share) ? `${(share * 100).toFixed(digits)}\u00a0%` : NONE;
}

/** Two shares as the ends of an interval: 88.1 to 93.4 %. */
export function between(low, high) {
  return `${percent(low).replace("\u00a0%", "")} to ${percent(high)}`;
}

export function bytes(amount) {
  if (!known(amount)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (amount >= 1000 && at < units.length - 1) [amount, at] = [amount / 1000, at + 1];
  return `${at ? amount.toPrecision(3) : amount} ${units[at]}`;
}

/** How long that is, in the two largest units. */
export function span(ms) {
  if (!known(ms)) return NONE;
  const all = Math.max(0, Math.floor(ms / 1000));
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${all} s`;
}

/** The hour, and the day where it is not today. */
export function moment(ms, now = Date.now()) {
  if (!known(ms)) return NONE;
  const date = new Date(ms);
  const hour = date.toTimeString().slice(0, 8);
  if (date.toDateString() === new Date(now).toDateString()) return hour;
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${hour}`;
}

/** What came to a histogram between two looks; one that began anew is taken as it is. */
export function since(now, before) {
  const counts = now.counts.map((number, at) => number - (before?.counts[at] ?? 0));
  if (!before || counts.some((number) => number < 0)) return now;
  return { bounds: now.bounds, counts, sum: now.sum - before.sum };
}

/** The value below which a share `q` lies, between the bounds of its bar; `beside`: under the first or over the last. */
export function quantile({ bounds, counts }, q) {
  const total = counts.reduce((sum, number) => sum + number, 0);
  if (!total) return { value: null, beside: "" };
  let rest = q * total;
  for (let at = 0; at < bounds.length; at += 1) {
    if (counts[at] > 0 && rest <= counts[at]) {
      const low = at ? bounds[at - 1] : 0;
      return { value: low + ((bounds[at] - low) * rest) / counts[at], beside: at ? "" : "<" };
    }
    rest -= counts[at];
  }
  return { value: bounds[bounds.length - 1] ?? null, beside: ">" };
}

export function quantileWords(histogram, q) {
  const { value, beside } = quantile(histogram, q);
  if (beside === "<") return `< ${duration(histogram.bounds[0])}`;
  return beside && known(value) ? `> ${duration(value)}` : duration(value);
}

export function mean({ counts, sum }) {
  const total = counts.reduce((all, number) => all + number, 0);
  return total ? sum / total : null;
}

/** The first few of some names, and how many more there are. */
export function few(names, most = 3) {
  return names.length > most + 1
    ? `${names.slice(0, most).join(", ")} and ${names.length - most} more`
    : names.join(", ");
}

/** Wilson's 95 % interval of a share that was seen in `n`. */
export function interval(share, n) {
  if (!known(share) || !(n > 0) || share < 0 || share > 1) return null;
  const z = 1.96;
  const middle = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
