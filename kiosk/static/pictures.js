// The far picture on #far, and the kiosk's own on .own while a photo is taken. A frame is one byte of kind, one of
// flags (1 = key frame, 2 = a still), four of milliseconds, then the picture (kiosk/screen.py).

const HEADER_BYTES = 6;
const FAR_VP8 = 1;
const FAR_JPEG = 2;
const OWN_JPEG = 3;
const MAX_DECODING = 10; // further behind, the decoder starts anew at a key frame
const KEY_FRAME_WAIT_MS = 1000;
const STALE_MS = 6000; // a face that does not move for so long is none: the line has room for the voice alone
const STILL_STALE_MS = 150_000; // of stills one may come a minute, and another may be left out

/** "vp8" where the page can decode it, else "jpeg". */
export async function picturesAs() {
  if (!("VideoDecoder" in window)) return "jpeg";
  try {
    return (await VideoDecoder.isConfigSupported({ codec: "vp8" })).supported ? "vp8" : "jpeg";
  } catch {
    return "jpeg";
  }
}

export class Pictures {
  #far;
  #decoder = null;
  #awaitsKey = true;
  #askedAt = -Infinity;
  #askForKeyFrame;
  #call = 0; // pictures of an earlier call that are still being decoded are not shown
  #drawn = 0; // the newest JPEG on the canvas: their decoding may end out of order
  #taken = 0;
  #stale = 0;
  #staleMs = STALE_MS;

  constructor(far, askForKeyFrame) {
    this.#far = far;
    this.#askForKeyFrame = askForKeyFrame;
  }

  take(buffer) {
    const view = new DataView(buffer);
    if (view.byteLength <= HEADER_BYTES) return;
    const kind = view.getUint8(0);
    const key = (view.getUint8(1) & 1) === 1;
    if (kind !== OWN_JPEG) this.#staleMs = view.getUint8(1) & 2 ? STILL_STALE_MS : STALE_MS;
    const timeMs = view.getUint32(2);
    const data = new Uint8Array(buffer, HEADER_BYTES);
    if (kind === FAR_VP8) this.#decode(key, timeMs, data);
    else if (kind === FAR_JPEG) this.#showJpeg(data, () => [this.#far]);
    else if (kind === OWN_JPEG) this.#showJpeg(data, () => document.querySelectorAll("canvas.own"));
  }

  /** No call any more: nothing of it stays on the screen or in the decoder. */
  clear() {
    this.#call++;
    this.#dropDecoder();
    this.#far.getContext("2d").clearRect(0, 0, this.#far.width, this.#far.height);
    delete document.body.dataset.far;
  }

  #decode(key, timeMs, data) {
    if (this.#decoder && this.#decoder.decodeQueueSize > MAX_DECODING) this.#dropDecoder();
    if (this.#awaitsKey && !key) return this.#wantKeyFrame();
    try {
      this.#decoder ??= this.#openDecoder();
      this.#decoder.decode(
        new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp: timeMs * 1000, data }),
      );
      this.#awaitsKey = false;
    } catch {
      this.#failed();
    }
  }

  #openDecoder() {
    const call = this.#call;
    const decoder = new VideoDecoder({
      output: (frame) => {
        if (call === this.#call) this.#draw(this.#far, frame, frame.displayWidth, frame.displayHeight);
        frame.close();
      },
      error: () => {
        if (this.#decoder === decoder) this.#failed();
      },
    });
    decoder.configure({ codec: "vp8", optimizeForLatency: true });
    return decoder;
  }

  #failed() {
    this.#dropDecoder();
    this.#wantKeyFrame();
  }

  #dropDecoder() {
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = null;
    this.#awaitsKey = true;
  }

  #wantKeyFrame() {
    const now = performance.now();
    if (now - this.#askedAt < KEY_FRAME_WAIT_MS) return;
    this.#askedAt = now;
    this.#askForKeyFrame();
  }

  async #showJpeg(data, canvases) {
    const call = this.#call;
    const taken = ++this.#taken;
    try {
      const image = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
      if (call === this.#call && taken > this.#drawn) {
        this.#drawn = taken;
        for (const canvas of canvases()) this.#draw(canvas, image, image.width, image.height);
      }
      image.close();
    } catch {
      // A damaged picture: the next one comes soon.
    }
  }

  #draw(canvas, image, width, height) {
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    if (canvas === this.#far) {
      document.body.dataset.far = "shown";
      clearTimeout(this.#stale);
      this.#stale = setTimeout(() => delete document.body.dataset.far, this.#staleMs);
    } else canvas.dataset.shown = "";
  }
}
