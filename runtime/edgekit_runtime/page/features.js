// What the drift watch looks at, for people: which feature tells most, and what it means where its name does not say.
// Refuses nothing: a feature that is not known here stands in the middle, without more words.

const FIRST = ["class", "confidence", "entropy"];
const LAST = ["zeros", "output_zeros", "not_finite", "output_not_finite"];
const NEAR = 0.8;

const EXPLAINED = {
  class: "Which answers the model gives, and how often.",
  confidence: "How far its best answer is ahead of the second, from 0 to 1.",
  entropy: "0 where one answer stands out, 1 where all seem alike.",
  brightness: "Moves with the light and the exposure.",
  contrast: "Falls in fog, in glare and behind dirt.",
  sharpness: "Falls where the lens is dirty or out of focus.",
  dark: "The lowest fifth of the image's own range.",
  bright: "The highest fifth of the image's own range.",
  top_bottom: "Moves where the light or the view does.",
  left_right: "Moves where the light or the view does.",
  orientation: "Moves where the camera is turned.",
  first_colour: "Red in RGB: moves with the colour of the light.",
  last_colour: "Blue in RGB: moves with the colour of the light.",
  not_finite: "What is no number: from a broken sensor, or a broken step before.",
  zeros: "Many come from a sensor that is off, or from padding.",
  band: "How much of the sound or signal is in these frequencies.",
  unknown: "Words that the model has never learnt.",
  variety: "How few of the words come twice.",
  token_mean: "Tokens are the numbers that words become: others mean other words.",
  output_not_finite: "The model answers with what is no number.",
};

const kind = ({ name }) => name.split(" of ")[0];

export const explained = (one) => EXPLAINED[kind(one)] ?? EXPLAINED[kind(one).replace(/_\d+$/, "")] ?? "";

export const waits = (one) => !one.now.some((share) => share > 0);

/** Still in alarm, which ends when it was calm for a while, though it is within its limit by now. */
export const fading = (one) => one.alarm && one.ks <= one.limit;

/** What shifted first, then what is coming back, what is near an alarm, and what tells most of the rest. */
export function ordered(features) {
  const places = new Map(features.map((one) => [one, place(one)]));
  return [...features].sort((a, b) => places.get(a) - places.get(b));
}

function place(one) {
  const far = one.ks / Math.max(one.limit, 1e-9);
  if (one.alarm) return fading(one) ? -100 : -1000 - Math.floor(far);
  if (far > NEAR && !waits(one)) return -10;
  const [first, last] = [FIRST.indexOf(kind(one)), LAST.indexOf(kind(one))];
  return first >= 0 ? first : last >= 0 ? 100 + last : 50;
}

/** What moved, and what is on its way back, as the names of both: [now, before]. */
export function moved(features) {
  const alarming = ordered(features).filter((one) => one.alarm);
  return [false, true].map((back) => alarming.filter((one) => fading(one) === back).map((one) => one.words));
}
