// The form that tries the model: a photo, a sound, a text or tensors go in, labels with bars come out.
// Refuses to send two things at once: a newer one takes the place of what is still under way.

import { attribute, by, h, say, show } from "./dom.js";
import { answer, failure } from "./answer.js";
import { cannotRecord, record } from "./sound.js";

const PHOTOS = "image/jpeg,image/png,image/webp,image/bmp,image/gif,image/tiff";
const SOUNDS = "audio/wav,.wav";
const KINDS = {
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  png: "image/png",
  webp: "image/webp",
  bmp: "image/bmp",
  gif: "image/gif",
  tif: "image/tiff",
  tiff: "image/tiff",
  wav: "audio/wav",
};
const WIRE = { bool: "BOOL", float16: "FP16", bfloat16: "BF16", float32: "FP32", float64: "FP64", object: "BYTES" };
const MOST_SHOWN = 256;
const WORDS = {
  image: "Give the model a photo: drop it, choose it or take it.",
  audio: "Give the model a sound: a wav file, or record one.",
  text: "Give the model a text.",
  tensors: "Give the model its tensors, as JSON of the Open Inference Protocol.",
};

let [shown, model, under, place] = ["", null, null, ""];

/** Show the form of this model, unless it is there. */
export function trying(one) {
  model = one;
  const mark = JSON.stringify([one.name, one.version, one.takes, one.inputs]);
  if (mark === shown) return;
  shown = mark;
  under?.abort();
  forget();
  say(by("try-words"), WORDS[one.takes] ?? WORDS.tensors);
  by("answer").replaceChildren(h("p", { class: "fine" }, "The answer comes here."));
  by("form").replaceChildren(...({ image: photo, audio: sound, text: words }[one.takes] ?? tensors)(one));
}

by("form").addEventListener("submit", (event) => event.preventDefault());

function photo() {
  const picture = h("img", { class: "shown", alt: "The photo that was sent", hidden: true });
  const took = (file) => {
    preview(picture, file);
    picture.onload = () => picture.classList.toggle("tiny", picture.naturalWidth < 128);
    picture.onerror = () => show(picture, false);
    send(file, typed(file, "image"));
  };
  const camera = h(
    "label",
    { class: "button" },
    "Take a photo",
    h("input", {
      type: "file",
      class: "unseen",
      accept: "image/*",
      capture: "environment",
      onclick: anew,
      onchange: (event) => chosen(event, took),
    }),
  );
  return [
    zone("Photo (JPEG, PNG, WebP, BMP, GIF or TIFF)", PHOTOS, took),
    matchMedia("(pointer: coarse)").matches ? h("div", { class: "acts" }, camera) : null,
    picture,
  ].filter(Boolean);
}

function sound() {
  const player = h("audio", { controls: true, hidden: true, "aria-label": "The sound that was sent" });
  const took = (file) => {
    preview(player, file);
    send(file, typed(file, "audio"));
  };
  const why = cannotRecord();
  return [zone("Sound (wav)", SOUNDS, took), why ? h("p", { class: "fine" }, why) : recorder(took), player];
}

function recorder(took) {
  const [button, time] = [h("button", { type: "button" }, "Record"), h("span", { class: "fine", role: "timer" })];
  let [stop, starting] = [null, false];
  button.addEventListener("click", async () => {
    if (starting) return;
    if (stop) return finish();
    starting = true;
    try {
      stop = await record((seconds) => say(time, `${seconds.toFixed(1)} s`), finish);
      say(button, "Stop");
    } catch (error) {
      by("answer").replaceChildren(
        failure(
          "The microphone could not be used",
          error.name === "NotAllowedError" ? "allow it in the browser, or choose a wav file" : error.message,
        ),
      );
    }
    starting = false;
  });
  async function finish() {
    const file = await stop?.();
    [stop] = [null];
    say(button, "Record");
    if (file) took(file);
  }
  return h("div", { class: "acts" }, button, time);
}

function words() {
  const text = h("textarea", { id: "text", spellcheck: "false" });
  return asked("Text", text, () => send(text.value, "text/plain; charset=utf-8"));
}

function tensors(one) {
  const text = h("textarea", { id: "text", spellcheck: "false", autocapitalize: "off" });
  text.value = example(one.inputs);
  return asked("Request as JSON", text, () => send(text.value, "application/json"));
}

function asked(name, text, go) {
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go();
  });
  const button = h("button", { type: "button", class: "main", onclick: go }, "Ask the model");
  return [
    h("label", { for: "text" }, name),
    text,
    h("div", { class: "acts" }, button, h("span", { class: "fine" }, "or Ctrl + Enter")),
  ];
}

/** A request of zeros that fits; the numbers are left out where they are too many to be read. */
function example(inputs) {
  const made = inputs.map(({ name, datatype, shape }) => {
    const sizes = shape.map((size) => size ?? 1);
    const total = sizes.reduce((product, size) => product * size, 1);
    const kind = WIRE[datatype] ?? datatype.toUpperCase();
    const one = kind === "BYTES" ? "" : kind === "BOOL" ? false : 0;
    return { name, shape: sizes, datatype: kind, data: total <= MOST_SHOWN ? Array(total).fill(one) : [] };
  });
  return `{"inputs": [\n${made.map((one) => `  ${JSON.stringify(one)}`).join(",\n")}\n]}`;
}

function zone(name, accept, took) {
  const input = h("input", {
    type: "file",
    id: "file",
    accept,
    onclick: anew,
    onchange: (event) => chosen(event, took),
  });
  const area = h(
    "div",
    { class: "drop" },
    h("label", { for: "file" }, name),
    input,
    h("p", { class: "fine" }, "Or drop it here. It goes to this device and nowhere else."),
  );
  const over = (is) => (event) => {
    event.preventDefault();
    area.classList.toggle("over-it", is);
  };
  area.addEventListener("dragover", over(true));
  area.addEventListener("dragleave", over(false));
  area.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files[0]) took(event.dataTransfer.files[0]);
  });
  return area;
}

/** The same file may be chosen again. */
function anew(event) {
  event.target.value = "";
}

function chosen(event, took) {
  if (event.target.files[0]) took(event.target.files[0]);
}

const typed = (file, kind) =>
  file.type.startsWith(`${kind}/`) ? file.type : (KINDS[file.name.split(".").pop().toLowerCase()] ?? `${kind}/unknown`);

function preview(element, file) {
  forget();
  place = URL.createObjectURL(file);
  attribute(element, "src", place);
  show(element, true);
}

function forget() {
  if (place) URL.revokeObjectURL(place);
  place = "";
}

async function send(body, type) {
  under?.abort();
  const mine = (under = new AbortController());
  by("answer").replaceChildren(h("p", { class: "fine" }, "The model is asked."));
  const begun = performance.now();
  let found;
  try {
    const path = `${location.origin}/v2/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}/infer`;
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": type }, body, signal: mine.signal });
    const seconds = (performance.now() - begun) / 1000;
    found = await answer(reply, seconds);
  } catch (error) {
    if (mine.signal.aborted) return;
    found = failure("The device did not answer", error.message);
  }
  if (!mine.signal.aborted) by("answer").replaceChildren(...[found].flat());
}
