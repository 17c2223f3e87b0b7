// What the last five minutes were, from the counts that the device has kept since it started.
// Refuses to mix two lives of a device: a restart begins anew. Keeps so many points and no more.

import { quantile, since } from "./numbers.js";

export const SPAN_MS = 300000;
const [WINDOW_MS, MINUTE_MS, SMOOTH_MS, MOST] = [10000, 60000, 2500, 320];

export class Memory {
  #looks = [];
  #points = new Map();
  #started = 0;

  /** One more answer of /status. */
  add(status) {
    if (status.started_ms !== this.#started)
      [this.#looks, this.#points, this.#started] = [[], new Map(), status.started_ms];
    const look = {
      t: status.now_ms,
      models: new Map(status.models.map((one) => [mark(one), slim(one)])),
      refused: status.counters.refused,
    };
    this.#looks = [...this.#looks.filter((one) => one.t > look.t - MINUTE_MS - 2000 && one.t < look.t), look];
    for (const one of status.models) this.#point(one, look.t);
    for (const known of this.#points.keys()) if (!look.models.has(known)) this.#points.delete(known);
  }

  /** What a model did in the last `ms`: {seconds, answered, ..., request, queue, compute}; null at first. */
  recent(model, ms = WINDOW_MS) {
    const newest = this.#looks[this.#looks.length - 1];
    const first = this.#looks.find((one) => one.t >= newest.t - ms && one.models.has(mark(model)));
    if (!first || first === newest) return null;
    const [now, then] = [newest.models.get(mark(model)), first.models.get(mark(model))];
    const found = { seconds: (newest.t - first.t) / 1000 };
    for (const name of Object.keys(now.requests)) found[name] = Math.max(0, now.requests[name] - then.requests[name]);
    for (const name of Object.keys(now.times)) found[name] = since(now.times[name], then.times[name]);
    return found;
  }

  /** How often each reason to refuse came in the last minute. */
  refused() {
    const [first, last] = [this.#looks[0], this.#looks[this.#looks.length - 1]];
    return Object.fromEntries(
      Object.entries(last.refused).map(([why, total]) => [why, Math.max(0, total - (first.refused[why] ?? 0))]),
    );
  }

  /** The points {t, rate, p50, p99} of a model. */
  points(model) {
    return this.#points.get(mark(model)) ?? [];
  }

  #point(model, t) {
    const [all, found] = [
      this.#points.get(mark(model)) ?? [],
      this.recent(model, Math.max(SMOOTH_MS, t - (this.#looks.at(-2)?.t ?? t))),
    ];
    if (found) {
      const [p50, p99] = [0.5, 0.99].map((q) => quantile(found.request, q).value);
      all.push({ t, rate: found.answered / found.seconds, p50, p99 });
    }
    while (all.length > MOST || (all.length && all[0].t < t - SPAN_MS)) all.shift();
    this.#points.set(mark(model), all);
  }
}

const mark = (model) => `${model.name}/${model.version}/${model.loaded_ms}`;

const slim = (model) => ({ requests: model.requests, times: model.seconds });
