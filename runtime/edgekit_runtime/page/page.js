// The page: asks the device every second how it is, remembers five minutes of it, and has the parts drawn.
// Refuses to go on asking where it may not: a refused token is told, with what to do, and asked for again by hand.

import { device } from "./device.js";
import { announce, by, h, redraw, say, show } from "./dom.js";
import { drift } from "./drift.js";
import { Memory } from "./memory.js";
import { key, model, models } from "./model.js";
import { count, few, span } from "./numbers.js";
import { quality } from "./quality.js";
import { troubles } from "./troubles.js";
import { trying } from "./trying.js";

const [QUICK_MS, HIDDEN_MS, PATIENCE_MS] = [1000, 5000, 8000];

const TAGS = { alarm: "Alarm", watch: "Watch", open: "Note" };

const memory = new Memory();
let chosen = location.hash.slice(1);
let [last, answered, spoken, timer] = [null, 0, "", 0];

async function look() {
  clearTimeout(timer);
  timer = 0;
  try {
    const answer = await fetch(`${location.origin}/status${answered ? "" : "?recent"}`, {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.status === 401 || answer.status === 403) return refused(answer.status);
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    last = await answer.json();
    answered = Date.now();
    for (const look of last.recent ?? []) memory.add(look);
    memory.add(last);
    draw();
  } catch (error) {
    lost(error);
  }
  timer = setTimeout(look, document.hidden ? HIDDEN_MS : QUICK_MS);
}

function draw() {
  const picked = last.models.find((one) => encodeURIComponent(key(one)) === chosen) ?? last.models[0];
  const found = troubles(last, memory);
  show(by("all"), true);
  say(by("host"), last.host);
  say(by("version"), `${last.name} ${last.version}`);
  say(by("up"), `up ${span(last.now_ms - last.started_ms)}`);
  say(by("fresh"), "live");
  head(found);
  models(last.models, picked, memory, choose);
  for (const id of ["model", "try", "drift", "quality"]) show(by(id), picked !== undefined);
  if (picked !== undefined) {
    model(picked, memory, last.now_ms);
    trying(picked);
    drift(picked, last.now_ms);
    quality(picked, last.now_ms);
  }
  device(last);
  const { looked = 0, skipped = 0 } = last.monitor ?? {};
  say(
    by("looked"),
    looked + skipped
      ? `Of ${count(looked + skipped)} answers, ${count(looked)} were looked at for drift; the others were left out to keep the device quick.`
      : "",
  );
}

function head(found) {
  const worst = found.some((one) => one.state === "alarm") ? "alarm" : (found[0]?.state ?? "good");
  const serving = last.models.length === 1 ? last.models[0].name : `${last.models.length} models`;
  const words = {
    good: last.models.length ? `${serving}: all is well` : "No model is loaded yet",
    open: `${serving}: running; drift is not watched${last.models.length > 1 ? ` of ${few(found.map((one) => one.title))}` : ""}`,
    watch: `${serving}: running, but take a look`,
    alarm: found.find((one) => one.state === "alarm")?.title,
  }[worst];
  by("top").dataset.state = worst;
  say(by("headline"), words);
  redraw(
    by("troubles"),
    found.map(({ state, words: told, where }) => ({ state, told, where })),
    (all) =>
      all.map(({ state, told, where }) =>
        h(
          "li",
          { "data-state": state },
          h("span", { class: "tag" }, TAGS[state]),
          h("span", {}, told, " ", h("a", { href: `#${where}` }, "Show")),
        ),
      ),
  );
  document.title = `${worst === "alarm" ? "ALARM: " : ""}${words} – EdgeKit`;
  if (spoken !== words) announce(words);
  spoken = words;
}

function choose(name) {
  chosen = encodeURIComponent(name);
  history.replaceState(null, "", `#${chosen}`);
  draw();
}

function lost(error) {
  const silent = answered
    ? `The device has not answered for ${span(Date.now() - answered)}`
    : "The device does not answer";
  const why =
    error.name === "TimeoutError" ? "it takes too long" : error instanceof TypeError ? "no connection" : error.message;
  stopped(
    "watch",
    "No answer from the device",
    `${silent} (${why}). Trying again every second; what is below is what it said last.`,
    null,
  );
}

function refused(status) {
  const words =
    status === 401
      ? "This server asks for a token. Choose “Ask again”: the browser then asks for a name and a password. Leave the name empty, and give the token as the password. "
      : "This token is known, but may not see this page. It needs the scopes metrics (to see it) and infer (to try the model). ";
  const make =
    "Who runs the server makes one with: edgekit-runtime token new NAME --scope metrics --scope infer --file TOKENS";
  stopped(
    "watch",
    status === 401 ? "A token is needed" : "Another token is needed",
    words + make,
    h("button", { type: "button", onclick: () => location.reload() }, "Ask again"),
  );
}

function stopped(state, words, more, act) {
  by("top").dataset.state = state;
  say(by("headline"), words);
  say(by("fresh"), "not live");
  redraw(by("troubles"), [words, more], () =>
    h(
      "li",
      { "data-state": state },
      h("span", { class: "tag" }, "Watch"),
      h("span", {}, more, act && h("div", { class: "acts" }, act)),
    ),
  );
  document.title = `${words} – EdgeKit`;
  if (spoken !== words) announce(words);
  spoken = words;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && timer) look();
});
look();
