/** Hands on what the microphone gives, in blocks of 20 ms; runs beside the page (`turns.js`). */

const BLOCK_S = 0.02;

class TurnTap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(Math.round(sampleRate * BLOCK_S));
    this.filled = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (let from = 0; from < samples.length; ) {
      const taken = Math.min(samples.length - from, this.block.length - this.filled);
      this.block.set(samples.subarray(from, from + taken), this.filled);
      this.filled += taken;
      from += taken;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("turn-tap", TurnTap);
