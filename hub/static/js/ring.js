/**
 * How a call makes itself known: a tone, the title, a notification of the system.
 *
 * A tone is rendered once into a buffer and looped by the audio thread, because timers of a page in the background
 * are slowed down to one a minute. No patient's data goes into title or notification.
 */

const RATE_HZ = 24_000;
const TITLE_MS = 1000;
const JUDGE_MS = 500; // a context that may run takes a moment to begin
const QUIET = 0.12; // while in a call: heard by the doctor, hardly by the patient

/** Beeps of `[start s, length s, Hz]` within a loop of `length` seconds. */
const TONES = {
  call: { length: 3, beeps: [[0, 0.35, 587], [0.4, 0.35, 740], [0.9, 0.35, 587], [1.3, 0.35, 740]] },
  emergency: {
    length: 1.5,
    beeps: [[0, 0.13, 988], [0.16, 0.13, 1319], [0.32, 0.13, 988], [0.48, 0.13, 1319], [0.64, 0.13, 988], [0.8, 0.3, 1319]],
  },
};

/** @typedef {"none"|"call"|"emergency"} Kind */

export class Ringer {
  /** @param {() => void} onChange sound became allowed */
  constructor(onChange) {
    this.onChange = onChange;
    this.context = new AudioContext({ sampleRate: RATE_HZ });
    this.context.onstatechange = onChange;
    this.judged = false;
    setTimeout(() => {
      this.judged = true;
      onChange();
    }, JUDGE_MS);
    this.gain = this.context.createGain();
    this.gain.connect(this.context.destination);
    this.buffers = { call: tone(this.context, TONES.call), emergency: tone(this.context, TONES.emergency) };
    /** @type {AudioBufferSourceNode|null} */
    this.source = null;
    /** @type {Kind} */
    this.kind = "none";
    this.where = "";
    this.title = document.title;
    this.titleTimer = 0;
    /** @type {Notification|null} */
    this.notification = null;
    for (const event of ["pointerdown", "keydown"]) document.addEventListener(event, () => void this.allowSound());
  }

  /** A browser gives sound only to a page that the person has touched. */
  get soundAllowed() {
    return this.context.state === "running" || !this.judged;
  }

  get mayAskToNotify() {
    return "Notification" in window && Notification.permission === "default";
  }

  async allowSound() {
    if (this.context.state !== "running") await this.context.resume();
  }

  async askToNotify() {
    await Notification.requestPermission();
    this.onChange();
  }

  /**
   * @param {Kind} kind @param {string} where the site that rings first
   * @param {boolean} busy in a call: an emergency is heard softly, any other call only seen
   */
  ring(kind, where, busy) {
    const audible = busy && kind !== "emergency" ? "none" : kind;
    this.gain.gain.value = busy ? QUIET : 0.5;
    if (audible !== this.audible) this.#sound(audible);
    if (kind === this.kind && where === this.where) return;
    const louder = kind !== "none" && kind !== this.kind;
    [this.kind, this.where] = [kind, where];
    document.body.dataset.ringing = kind;
    this.#flashTitle();
    if (louder || kind === "none") this.#notify();
  }

  #sound(kind) {
    this.audible = kind;
    this.source?.stop();
    this.source = null;
    if (kind === "none") return;
    this.source = new AudioBufferSourceNode(this.context, { buffer: this.buffers[kind], loop: true });
    this.source.connect(this.gain);
    this.source.start();
  }

  #flashTitle() {
    clearInterval(this.titleTimer);
    document.title = this.title;
    if (this.kind === "none") return;
    const words = this.kind === "emergency" ? `EMERGENCY – ${this.where}` : `Call – ${this.where}`;
    const flash = () => (document.title = document.title === words ? `● ${this.title}` : words);
    flash();
    this.titleTimer = setInterval(flash, TITLE_MS);
  }

  #notify() {
    this.notification?.close();
    this.notification = null;
    if (this.kind === "none" || !("Notification" in window) || Notification.permission !== "granted") return;
    if (document.visibilityState === "visible" && document.hasFocus()) return;
    const title = this.kind === "emergency" ? "Emergency call" : "A patient is calling";
    try {
      this.notification = new Notification(title, { body: this.where, tag: "ring", requireInteraction: true });
    } catch {
      return; // Android's Chromium has notifications only through a service worker
    }
    this.notification.onclick = () => window.focus();
  }
}

/** @param {AudioContext} context @param {{length: number, beeps: number[][]}} pattern */
function tone(context, { length, beeps }) {
  const buffer = context.createBuffer(1, length * RATE_HZ, RATE_HZ);
  const samples = buffer.getChannelData(0);
  for (const [start, lasts, hertz] of beeps) {
    const first = Math.round(start * RATE_HZ);
    const total = Math.round(lasts * RATE_HZ);
    for (let i = 0; i < total; i += 1) {
      const edge = Math.min(1, i / 240, (total - i) / 1200); // 10 ms up, 50 ms down: no clicks
      const phase = (2 * Math.PI * hertz * i) / RATE_HZ;
      samples[first + i] = edge * (0.8 * Math.sin(phase) + 0.2 * Math.sin(2 * phase));
    }
  }
  return buffer;
}
