// Runs in the browser's sound thread: hands on what the microphone gave, a tenth of a second at a time.
// Refuses nothing: who listens decides when it is enough.

const WHOLE = Math.round(sampleRate / 10);

class Recorder extends AudioWorkletProcessor {
  held = new Float32Array(WHOLE);
  count = 0;

  process([[first]]) {
    for (const value of first ?? []) {
      this.held[this.count] = value;
      this.count += 1;
      if (this.count === WHOLE) {
        this.port.postMessage(this.held.slice());
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
