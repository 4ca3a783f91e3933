/**
 * The doctor's own microphone and camera. Each is opened on its own where both together fail, so that a missing
 * or busy camera costs the picture and never the voice.
 *
 * @typedef {"audio"|"video"} Kind
 */

const CAMERA = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 15, max: 30 } };
const NAMES = { audio: "microphone", video: "camera" };

export class OwnDevices {
  /** @param {() => void} onChange a track came, went, or was refused */
  constructor(onChange) {
    this.onChange = onChange;
    /** @type {Record<Kind, MediaStreamTrack|null>} */
    this.tracks = { audio: null, video: null };
    /** @type {Record<Kind, string>} why there is none, in words; empty while there is one or it is starting */
    this.problems = { audio: "", video: "" };
    /** The own picture, a clone: it stays visible to the doctor while nothing is sent. */
    this.preview = null;
    this.starting = null;
    this.wanted = false;
    this.audioProcessing = true;
    navigator.mediaDevices?.addEventListener("devicechange", () => void this.retry());
  }

  /** Safe to call again; settles when both were tried. @param {boolean} audioProcessing @returns {Promise<void>} */
  open(audioProcessing) {
    this.wanted = true;
    this.audioProcessing = audioProcessing;
    this.starting ??= this.#openBoth().finally(() => (this.starting = null));
    return this.starting;
  }

  /** What is missing, once more: after a device was plugged in or permission was given. */
  retry() {
    const missing = !this.tracks.audio || !this.tracks.video;
    return this.wanted && missing ? this.open(this.audioProcessing) : Promise.resolve();
  }

  close() {
    this.wanted = false;
    for (const kind of /** @type {Kind[]} */ (["audio", "video"])) {
      this.tracks[kind]?.stop();
      this.tracks[kind] = null;
      this.problems[kind] = "";
    }
    this.preview?.getTracks().forEach((track) => track.stop());
    this.preview = null;
  }

  async #openBoth() {
    const audio = this.audioProcessing
      ? { echoCancellation: true, noiseSuppression: true, autoGainControl: true }
      : { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const want = {};
    if (!this.tracks.audio) want.audio = audio;
    if (!this.tracks.video) want.video = CAMERA;
    if (!navigator.mediaDevices?.getUserMedia) {
      this.problems = {
        audio: "This address gives the browser no microphone: open the console over https.",
        video: "This address gives the browser no camera: open the console over https.",
      };
      this.onChange();
      return;
    }
    try {
      this.#take(await navigator.mediaDevices.getUserMedia(want)); // one question to the doctor, not two
    } catch (error) {
      const kinds = /** @type {Kind[]} */ (Object.keys(want));
      if (kinds.length === 1) this.#refused(kinds[0], error);
      else for (const kind of kinds) await this.#openOne(kind, want[kind]);
    }
    this.onChange();
  }

  async #openOne(kind, constraints) {
    try {
      this.#take(await navigator.mediaDevices.getUserMedia({ [kind]: constraints }));
    } catch (error) {
      this.#refused(kind, error);
    }
  }

  #take(stream) {
    for (const track of stream.getTracks()) {
      const kind = /** @type {Kind} */ (track.kind);
      if (!this.wanted || this.tracks[kind]) {
        track.stop(); // the call ended while the browser was asking
        continue;
      }
      track.enabled = false; // nothing is sent before the doctor answers
      this.tracks[kind] = track;
      this.problems[kind] = "";
      track.onended = () => this.#ended(kind, track);
      if (kind === "video") this.preview = new MediaStream([track.clone()]);
    }
  }

  #ended(kind, track) {
    if (this.tracks[kind] !== track) return;
    this.tracks[kind] = null;
    this.problems[kind] = `The ${NAMES[kind]} has stopped. Plug it in again, or try again.`;
    if (kind === "video") this.preview = null;
    this.onChange();
  }

  #refused(kind, error) {
    const name = NAMES[kind];
    this.problems[kind] = {
      NotAllowedError: `The browser does not let this page use the ${name}. Allow it beside the address, then try again.`,
      NotFoundError: `No ${name} found. Plug one in: it is taken up by itself.`,
      NotReadableError: `The ${name} is in use by another program. Close it there, then try again.`,
    }[error.name] ?? `The ${name} does not start (${error.name}). Try again.`;
  }
}
