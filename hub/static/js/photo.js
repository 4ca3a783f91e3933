/**
 * A sharp photo that the kiosk sends in a call, in stages of rising quality (`edge_agent/core/progressive.py`): each
 * message is photo, stage, number of stages, offset and length of the stage, and some of its bytes.
 */

const HEAD_BYTES = 11;
const MOST_BYTES = 1_000_000;
const MOST_STAGES = 5;

export class SharpPhoto {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.asked = false;
    this.failed = false;
    this.url = "";
    this.share = 0; // of all that comes, 0 to 1
    this.number = -1;
  }

  wait() {
    this.asked = true;
    this.failed = false;
    this.onChange();
  }

  /** The camera gave none, or the line went. */
  fail() {
    if (!this.asked) return;
    this.asked = false;
    this.failed = !this.url;
    this.onChange();
  }

  /** @param {ArrayBuffer} message */
  take(message) {
    if (message.byteLength <= HEAD_BYTES) return;
    const view = new DataView(message);
    const [number, stage, stages] = [view.getUint8(0), view.getUint8(1), view.getUint8(2)];
    const [offset, length] = [view.getUint32(3), view.getUint32(7)];
    const piece = new Uint8Array(message, HEAD_BYTES);
    if (stages > MOST_STAGES || stage >= stages || length > MOST_BYTES || offset + piece.length > length) return;
    if (number !== this.number || stage !== this.stage) {
      this.number = number;
      this.stage = stage;
      this.bytes = new Uint8Array(length);
      this.have = 0;
    }
    if (this.bytes.length !== length) return;
    this.bytes.set(piece, offset);
    this.have += piece.length; // the channel is reliable and in order
    this.share = (stage + this.have / length) / stages;
    if (this.have >= length) {
      this.#forget();
      this.url = URL.createObjectURL(new Blob([this.bytes], { type: "image/webp" }));
      this.asked = stage + 1 < stages;
    }
    this.onChange();
  }

  close() {
    this.#forget();
    this.asked = this.failed = false;
    this.number = -1;
    this.onChange();
  }

  #forget() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = "";
  }
}
