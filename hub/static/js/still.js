/**
 * Stills of the own camera, where the kiosk's link is too thin for moving pictures (`edge_agent/core/farstill.py`).
 *
 * The browser's own encoder would send a still as one burst, which stands a second before the voice. Here it is made as a
 * WebP, and the key frame of VP8 that a lossy one holds goes over the call's data channel in small messages, at the pace
 * that the kiosk orders: still, offset and length of the whole, and a piece of it. The channel sends nothing again, as SCTP
 * would pack all that was lost into one packet, longer than anything else: the kiosk asks for what it misses.
 *
 * @typedef {{every: number, bytes: number, height: number, bps: number}} StillOrder one each `every` seconds, of so many bytes
 *   at most; `bps` is what it and the voice may take of the link together, headers included
 */

const HEAD_BYTES = 5;
const PIECE_BYTES = 195; // as the kiosk expects; a message stands no more than a tenth of a second before the voice at 24 kbit/s
const AROUND_BYTES = 28 + 37 + 12 + 16; // IP and UDP, DTLS, SCTP and its chunk
const VOICE_AROUND_BYTES = 28 + 10; // IP and UDP, SRTP's tag
const LOOK_MS = 50;
const MOST_DEBT_S = 1; // so long the voice alone can hold a still up, even where it takes more than it may
const AWAKE_MS = 300; // a camera that was switched on or off still shows what was before
const PATIENCE = 2; // times the interval: so long the kiosk may miss some of a still before the next begins
const SCALES = [1, 0.75, 0.5];
const [LEAST_QUALITY, MOST_QUALITY, TRIALS] = [0.1, 0.9, 5];
const RIFF_HEAD_BYTES = 12;
const CHUNK_HEAD_BYTES = 8;

export class StillSender {
  /**
   * @param {RTCDataChannel} channel
   * @param {{track: () => MediaStreamTrack|null, voice: () => Promise<{bytes: number, packets: number}>, isQuiet: () => boolean}} leg
   *   the camera's track; what was sent of the voice since the start; whether nothing may go now
   */
  constructor(channel, { track, voice, isQuiet }) {
    this.channel = channel;
    this.track = track;
    this.voice = voice;
    this.isQuiet = isQuiet;
    /** @type {StillOrder|null} */
    this.order = null;
    this.number = 0; // counts them
    /** @type {Uint8Array[]} the messages of the last one, until the kiosk has it */
    this.messages = [];
    /** @type {number[]} which of them are to go */
    this.waiting = [];
    this.dueAt = this.giveUpAt = 0;
    this.shows = ""; // the camera and whether it is on
    this.cannot = false;
  }

  /** @param {StillOrder|null} order */
  obey(order) {
    const { every, bytes, height } = this.order ?? {};
    const same = order !== null && bytes === order.bytes && height === order.height;
    this.order = order;
    if (same) {
      // Another pace and another interval are for what is under way too.
      this.dueAt += 1000 * (order.every - every);
      this.giveUpAt += 1000 * PATIENCE * (order.every - every);
      return;
    }
    this.#drop();
    clearInterval(this.timer);
    if (order && !this.cannot) this.timer = setInterval(() => void this.#look(), LOOK_MS);
    else this.#forgetCamera();
  }

  /** What the kiosk misses of a still; nothing: it has it. @param {number[]} got its number, then those of messages */
  told([number, ...missing]) {
    if (number !== this.number) return;
    if (!missing.length) this.messages = [];
    for (const index of missing) {
      if (index in this.messages && !this.waiting.includes(index)) this.waiting.unshift(index);
    }
  }

  close() {
    this.obey(null);
  }

  #drop() {
    this.messages = [];
    this.waiting = [];
    this.dueAt = performance.now();
  }

  #forgetCamera() {
    if (this.camera) this.camera.srcObject = null;
    this.camera = undefined;
    this.shows = "";
  }

  async #look() {
    if (this.isLooking) return;
    this.isLooking = true;
    try {
      await this.#step();
    } catch (error) {
      console.warn("no still goes: %s", error);
      this.#drop();
      this.dueAt += 1000;
    } finally {
      this.isLooking = false;
    }
  }

  async #step() {
    const order = this.order;
    const now = performance.now();
    if (this.isQuiet() || this.channel.readyState !== "open") return this.#drop();
    this.#watchCamera(now);
    if (now >= this.dueAt && (!this.messages.length || now >= this.giveUpAt) && !(await this.#begin(order))) return;
    if (!this.waiting.length || this.order !== order) return;
    await this.#pace(order.bps);
    if (this.debt > 0 && performance.now() < this.latestAt) return;
    if (this.channel.bufferedAmount || !this.waiting.length || this.isQuiet()) return;
    const message = this.messages[this.waiting.shift()];
    this.channel.send(message);
    this.debt = Math.max(0, this.debt) + 8 * (message.length + AROUND_BYTES);
    this.latestAt = performance.now() + this.latestMs;
  }

  /** Another camera, or the same one switched on or off, is news; before it was on for the first time there is nothing to show.
   * @param {number} now */
  #watchCamera(now) {
    const track = this.track();
    const shows = track?.readyState === "live" ? `${track.id} ${track.enabled}` : "";
    if (shows === this.shows) return;
    if (shows && !track.enabled && !this.shows) return;
    this.shows = shows;
    this.#drop();
    if (!shows) return; // unplugged
    this.dueAt = now + AWAKE_MS;
    if (this.camera?.srcObject?.getVideoTracks()[0] === track) return;
    this.camera = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    this.camera.srcObject = new MediaStream([track]);
    this.camera.play().catch(() => undefined); // replaced meanwhile
  }

  /** @param {StillOrder} order @returns {Promise<boolean>} whether there is one to send */
  async #begin(order) {
    if (!this.shows || !this.camera || this.camera.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return false;
    const shows = this.shows;
    const now = performance.now();
    [this.dueAt, this.giveUpAt] = [now + 1000 * order.every, now + 1000 * order.every * PATIENCE];
    const still = await this.#draw(order);
    if (!still || this.order === null || shows !== this.shows) return false;
    this.number = (this.number + 1) % 256;
    this.messages = [];
    for (let offset = 0; offset < still.length; offset += PIECE_BYTES) {
      const piece = still.subarray(offset, offset + PIECE_BYTES);
      const message = new Uint8Array(HEAD_BYTES + piece.length);
      const head = new DataView(message.buffer);
      head.setUint8(0, this.number);
      head.setUint16(1, offset);
      head.setUint16(3, still.length);
      message.set(piece, HEAD_BYTES);
      this.messages.push(message);
    }
    this.waiting = [...this.messages.keys()];
    // Whatever the voice takes, the last of them is gone when the next still is due.
    this.latestMs = (1000 * order.every) / (this.messages.length + 1);
    this.latestAt = performance.now() + this.latestMs;
    this.debt = 0;
    this.pacedAt = undefined;
    return true;
  }

  /** As sharp as so many bytes let it be. @param {StillOrder} order @returns {Promise<Uint8Array|null>} */
  async #draw({ bytes, height }) {
    this.canvas ??= document.createElement("canvas");
    const { videoWidth, videoHeight } = this.camera;
    for (const scale of SCALES) {
      const factor = (scale * Math.min(height, videoHeight)) / videoHeight;
      Object.assign(this.canvas, { width: Math.round(videoWidth * factor), height: Math.round(videoHeight * factor) });
      const pen = this.canvas.getContext("2d", { alpha: false }); // with it, it would not be one key frame alone
      pen.drawImage(this.camera, 0, 0, this.canvas.width, this.canvas.height);
      let best = null;
      let [low, high] = [LEAST_QUALITY, MOST_QUALITY];
      for (let trial = 0; trial < TRIALS; trial++) {
        const quality = (low + high) / 2;
        const blob = await new Promise((resolve) => this.canvas.toBlob(resolve, "image/webp", quality));
        const frame = blob?.type === "image/webp" ? keyFrameOf(await blob.arrayBuffer()) : null;
        if (!frame) return this.#giveUp();
        if (frame.length <= bytes) [best, low] = [frame, quality];
        else high = quality;
      }
      if (best) return best;
    }
    return null;
  }

  #giveUp() {
    console.warn("this browser makes no stills of the kind that the kiosk shows: it sends none");
    this.cannot = true;
    clearInterval(this.timer);
    this.#forgetCamera();
    return null;
  }

  /** What the link is still busy with, in bits. @param {number} bps */
  async #pace(bps) {
    const { bytes, packets } = await this.voice();
    const now = performance.now();
    const sent = bytes + VOICE_AROUND_BYTES * packets;
    if (this.pacedAt !== undefined) {
      this.debt += 8 * (sent - this.paced) - (bps * (now - this.pacedAt)) / 1000;
      this.debt = Math.min(MOST_DEBT_S * bps, Math.max((-bps * LOOK_MS) / 1000, this.debt));
    }
    [this.paced, this.pacedAt] = [sent, now];
  }
}

/**
 * Of a WebP (RFC 9649): beside the picture a browser may put a profile of colours that is larger than the bits left for it.
 * @param {ArrayBuffer} webp @returns {Uint8Array|null} null where it is coded in another way
 */
function keyFrameOf(webp) {
  const view = new DataView(webp);
  for (let at = RIFF_HEAD_BYTES; at + CHUNK_HEAD_BYTES <= view.byteLength; ) {
    const name = String.fromCharCode(...new Uint8Array(webp, at, 4));
    const length = view.getUint32(at + 4, true);
    at += CHUNK_HEAD_BYTES;
    if (name === "VP8 " && at + length <= view.byteLength) return new Uint8Array(webp, at, length);
    at += length + (length % 2);
  }
  return null;
}
