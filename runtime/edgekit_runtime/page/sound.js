// A recording from the microphone as a wav file: 16 bits, one channel, at the rate that the microphone gave.
// Refuses to record for ever, and to let the browser polish the sound: the model is to hear what the room hears.

export const LONGEST_S = 30;

/** Why this browser cannot record here; empty where it can. */
export function cannotRecord() {
  if (!window.isSecureContext)
    return "Recording needs a secure connection: serve with --tls-cert and --tls-key, or open the page on the device itself as http://localhost. A wav file works everywhere.";
  return navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode
    ? ""
    : "This browser cannot record. A wav file works everywhere.";
}

/** Begin to record; gives `stop()`, which gives the file. `tick` is told the seconds; `full` that it is long enough. */
export async function record(tick, full) {
  const raw = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
  const context = new AudioContext();
  const [pieces, rate] = [[], context.sampleRate];
  let samples = 0;
  const take = ({ data }) => {
    if (samples >= LONGEST_S * rate) return;
    pieces.push(data);
    samples += data.length;
    tick(samples / rate);
    if (samples >= LONGEST_S * rate) full();
  };
  const end = async () => {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") await context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url).href);
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = take;
    context.createMediaStreamSource(stream).connect(node);
    await context.resume();
  } catch (error) {
    await end();
    throw error;
  }
  return async () => {
    await end();
    return wav(pieces, rate);
  };
}

/** The pieces, each of floats from -1 to 1, as a wav file. */
export function wav(pieces, rate) {
  const size = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + size));
  const word = (at, text) => [...text].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, size, true);
  let at = 44;
  for (const piece of pieces) {
    for (const value of piece) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true);
      at += 2;
    }
  }
  return new File([view.buffer], "recording.wav", { type: "audio/wav" });
}
