/** A voice reply: Opus by MediaRecorder, one at a time. */

const KINDS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus"]; // what the hub takes
const BITS_PER_SECOND = 24_000; // clear speech; it goes down a thin line afterwards
const LONGEST_MS = 180_000;

export class Recorder {
  /** @param {{onChange: () => void, onDone: (consult: string, voice: Blob, ms: number) => void, onProblem: (text: string) => void}} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    /** @type {MediaRecorder|null} */
    this.recorder = null;
    this.consult = "";
    this.startedAt = 0;
    this.starting = false;
  }

  /** @returns {string} the consult being recorded for, or "" */
  get recordingFor() {
    return this.recorder ? this.consult : "";
  }

  get elapsedMs() {
    return this.recorder ? performance.now() - this.startedAt : 0;
  }

  /** @param {string} consult @param {boolean} audioProcessing */
  async start(consult, audioProcessing) {
    if (this.recorder || this.starting) return;
    const mimeType = KINDS.find((kind) => window.MediaRecorder?.isTypeSupported(kind));
    if (!mimeType || !navigator.mediaDevices) {
      this.listeners.onProblem("This browser cannot record a voice reply. Write it, or use Chrome or Firefox over https.");
      return;
    }
    this.starting = true;
    try {
      const audio = { echoCancellation: audioProcessing, noiseSuppression: audioProcessing, autoGainControl: audioProcessing };
      const stream = await navigator.mediaDevices.getUserMedia({ audio });
      this.#record(stream, consult, mimeType);
    } catch (error) {
      this.listeners.onProblem(`The microphone does not start (${error.name}). Check it and the browser's permission.`);
    } finally {
      this.starting = false;
    }
  }

  stop() {
    this.recorder?.stop();
  }

  #record(stream, consult, mimeType) {
    const parts = [];
    const recorder = new MediaRecorder(stream, { mimeType, audioBitsPerSecond: BITS_PER_SECOND });
    const limit = setTimeout(() => recorder.state === "recording" && recorder.stop(), LONGEST_MS);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearTimeout(limit);
      const ms = this.elapsedMs;
      stream.getTracks().forEach((track) => track.stop());
      this.recorder = null;
      this.listeners.onDone(consult, new Blob(parts, { type: mimeType }), ms);
    };
    recorder.start();
    [this.recorder, this.consult, this.startedAt] = [recorder, consult, performance.now()];
    this.listeners.onChange();
  }
}
