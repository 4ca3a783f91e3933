/**
 * The media of the one call this doctor is in: own devices, the legs, the hold, and knowing when the line is dead.
 *
 * It speaks to the hub through `send` alone and knows nothing of the page but its two video elements, so a socket
 * that is down or a page that is busy does not touch a call under way.
 *
 * @typedef {{path: "connecting"|"up"|"lost", lostSince: number, deaf: boolean, noPicture: boolean,
 *   soundBlocked: boolean, muted: boolean, cameraOff: boolean, hasMicrophone: boolean, hasCamera: boolean,
 *   starting: boolean, inTurns: boolean, problems: Record<"audio"|"video", string>, line: import("./leg.js").Line|null}} MediaStatus `lostSince` is in Unix ms
 */

import { OwnDevices } from "./devices.js";
import { Leg } from "./leg.js";
import { SharpPhoto } from "./photo.js";

const SILENT_AFTER_MS = 3000; // no packet for so long is a lost line, said to the doctor
const FAILED_ASK_MS = 5000; // a failed connection does not come back: ask for a new leg
const SILENT_ASK_MS = 12_000; // what a connection can outlive by itself
const CONNECT_ASK_MS = 15_000; // a new leg that takes longer will not connect
const ASK_AGAIN_MS = 8000;
const OLD_LEG_MS = 1000; // the kiosk may see the new leg a moment later than we do
const DEVICES_MS = 1500; // with permission given the answer carries real addresses; a question may stand for long
const TICK_MS = 500;
const LISTEN_MS = 100; // while nothing comes
const CALM_MS = 200; // else
const LINES_KEPT = 90; // some three minutes of a good line
const BREATH_MS = 1600; // the kiosk's pauses in speech have a packet each 400 ms, and some are lost
const PICTURES_BREATH_MS = 600; // pictures are most of what would wait in an outage, and come from the kiosk more often

export class CallMedia {
  /**
   * @param {{send: (message: {type: string}) => boolean, onChange: () => void}} hub
   */
  constructor({ send, onChange }) {
    this.send = send;
    this.onChange = onChange;
    this.farVideo = video({ id: "far-video", className: "far-video", ariaLabel: "Picture from the kiosk" });
    this.ownVideo = video({ id: "own-video", className: "own-video", ariaLabel: "Your own picture" });
    this.devices = new OwnDevices(() => this.#devicesChanged());
    this.call = "";
    this.photo = new SharpPhoto(() => this.onChange());
    this.#reset();
    setInterval(() => void this.#tick(), TICK_MS);
    setInterval(() => void this.#listen(), LISTEN_MS);
    for (const event of ["pointerdown", "keydown"]) document.addEventListener(event, () => this.#unblockSound());
  }

  #reset() {
    /** @type {Leg[]} oldest first */
    this.legs = [];
    this.floor = 0;
    /** @type {Leg|null} the one that is seen and heard */
    this.active = null;
    this.talking = false;
    this.muted = false;
    this.cameraOff = false;
    this.kioskOnline = true;
    this.everConnected = false;
    this.lostAt = 0; // performance.now()
    this.kioskState = { leg: 0, state: "connected" };
    this.askedAt = -Infinity;
    this.soundBlocked = false;
    /** @type {import("./leg.js").Line[]} of this call, the newest last */
    this.lines = [];
    this.toldLine = undefined;
  }

  /**
   * Get ready for a call: own devices are opened while the kiosk makes its offer. Safe to call again.
   * @param {string} call @param {{audioProcessing: boolean, rejoin: boolean}} options
   */
  begin(call, { audioProcessing, rejoin }) {
    if (this.call === call) return;
    if (this.call) this.end();
    this.call = call;
    this.#reset();
    void this.devices.open(audioProcessing);
    if (rejoin) {
      this.floor = rememberedLeg(call); // what the page before the reload has answered
      this.everConnected = true; // it was live before the reload: this is a line lost, not a first connection
      this.lostAt = performance.now();
      this.#askForLeg();
    }
    this.onChange();
  }

  /** @param {{call: string, leg: number, sdp: string, ice_servers: RTCIceServer[]}} offer */
  async takeOffer(offer) {
    if (offer.call !== this.call || offer.leg < this.#highestLeg()) return;
    const newest = this.legs.at(-1);
    if (newest?.number === offer.leg && newest.isOf(offer.sdp)) {
      if (newest.offer !== offer.sdp) await newest.addCandidates(offer.sdp).catch((error) => console.warn("candidates not usable: %s", error));
      return this.#sendAnswer(newest); // also where the hub has not heard it, as after an outage
    }
    const leg = new Leg(offer.leg, offer.sdp, offer.ice_servers, () => this.#legChanged(leg), () => this.#sendAnswer(leg), this.photo);
    this.legs.push(leg);
    this.onChange();
    if (this.devices.starting) await Promise.race([this.devices.starting, pause(DEVICES_MS)]);
    try {
      const willSend = { audio: !this.devices.problems.audio, video: !this.devices.problems.video };
      await leg.answer(this.devices.tracks, willSend);
      if (this.legs.includes(leg)) this.#sendAnswer(leg);
    } catch (error) {
      if (!this.legs.includes(leg)) return; // closed under our hands: the call is over
      console.warn("offer not usable leg=%d: %s", offer.leg, error);
      leg.fail();
      this.#legChanged(leg);
    }
  }

  /** Both sides are heard and seen from now, or from the moment the line is up. */
  talk() {
    if (this.talking) return;
    this.talking = true;
    if (this.active) this.active.lastPacketAt = this.active.lastPictureAt = performance.now();
    this.#applyHold();
    void this.#play();
    this.onChange();
  }

  /** After the page was taken away under the videos, by a sign-in in between: a browser pauses what it removes. */
  showAgain() {
    if (!this.call) return;
    void this.#play();
    void this.ownVideo.play().catch(() => undefined);
  }

  end() {
    for (const leg of this.legs) leg.close();
    this.devices.close();
    this.farVideo.srcObject = null;
    this.ownVideo.srcObject = null;
    this.call = "";
    this.photo.close();
    this.#reset();
    this.onChange();
  }

  /** @param {boolean} muted */
  setMuted(muted) {
    this.muted = muted;
    this.#applyHold();
    this.onChange();
  }

  /** @param {boolean} off */
  setCameraOff(off) {
    this.cameraOff = off;
    this.#applyHold();
    this.onChange();
  }

  /** What the kiosk says of its side. @param {{call: string, leg: number, state: string}} message */
  takeKioskState({ call, leg, state }) {
    if (call !== this.call || leg < this.kioskState.leg) return;
    this.kioskState = { leg, state };
    this.#judge();
    this.#applyHold();
    this.onChange();
  }

  /** Of this leg, "" where it has said nothing. */
  #kioskSays(leg) {
    return leg && this.kioskState.leg === leg.number ? this.kioskState.state : "";
  }

  /** @returns {MediaStatus} */
  status() {
    const now = performance.now();
    const { tracks, problems, starting } = this.devices;
    return {
      path: !this.everConnected ? "connecting" : this.lostAt ? "lost" : "up",
      lostSince: this.lostAt ? Date.now() - (now - this.lostAt) : 0,
      deaf: this.#kioskSays(this.active) === "stalled" && !this.lostAt,
      noPicture: this.talking && this.active !== null && now - this.active.lastPictureAt > SILENT_AFTER_MS,
      soundBlocked: this.soundBlocked,
      muted: this.muted,
      cameraOff: this.cameraOff,
      hasMicrophone: tracks.audio !== null,
      hasCamera: tracks.video !== null,
      starting: starting !== null,
      inTurns: this.inTurns,
      problems: { ...problems },
      line: this.active?.line ?? null,
    };
  }

  /** Nothing live fits the kiosk's line: people speak in turns (`turns.js`). */
  get inTurns() {
    return this.talking && this.kioskState.state === "turns";
  }

  /** The kiosk takes one, and sends it as sharp as its line lets it. */
  askForPhoto() {
    if (this.active?.askForPhoto()) this.photo.wait();
  }

  get microphone() {
    return this.devices.tracks.audio;
  }

  #highestLeg() {
    return this.legs.at(-1)?.number ?? this.floor;
  }

  #sendAnswer(leg) {
    if (!leg.sdp) return; // still being made
    const sent = this.send({ type: "answer", call: this.call, leg: leg.number, sdp: leg.sdp });
    if (sent) rememberLeg(this.call, leg.number);
  }

  #legChanged(leg) {
    if (leg.state === "connected" && this.legs.indexOf(leg) >= this.legs.indexOf(this.active)) this.#activate(leg);
    this.#judge();
    this.onChange();
  }

  #activate(leg) {
    if (this.active === leg) return;
    this.active = leg;
    this.everConnected = true;
    this.photo.fail(); // what an older leg has begun does not come any more
    const older = this.legs.splice(0, this.legs.indexOf(leg));
    setTimeout(() => older.forEach((other) => other.close()), OLD_LEG_MS);
    leg.setTracks(this.devices.tracks);
    this.farVideo.srcObject = leg.stream;
    void this.#play();
  }

  #applyHold() {
    const { audio, video } = this.devices.tracks;
    // Disabled tracks go on as silence and black: the path and the encoders stay warm, so that the first word
    // after Answer is not waited for.
    const live = this.talking && !this.inTurns;
    if (audio) audio.enabled = live && !this.muted;
    if (video) video.enabled = live && !this.cameraOff;
    for (const leg of this.legs) leg.rest(this.inTurns);
    this.farVideo.muted = !live || this.soundBlocked;
    this.devices.preview?.getTracks().forEach((track) => (track.enabled = !this.cameraOff));
  }

  async #play() {
    this.#applyHold();
    try {
      await this.farVideo.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return; // replaced by the next leg's stream, or ended
      this.soundBlocked = true; // after a reload a browser gives sound only to a page that was touched
      this.#applyHold();
      await this.farVideo.play().catch(() => undefined);
      this.onChange();
    }
  }

  #unblockSound() {
    if (!this.soundBlocked) return;
    this.soundBlocked = false;
    void this.#play();
    this.onChange();
  }

  #devicesChanged() {
    if (!this.call) return;
    for (const leg of this.legs) leg.setTracks(this.devices.tracks);
    this.#unblockSound(); // to a page that uses the microphone a browser gives sound untouched
    if (this.ownVideo.srcObject !== this.devices.preview) this.ownVideo.srcObject = this.devices.preview;
    this.#applyHold();
    this.onChange();
  }

  async #tick() {
    if (!this.call) return;
    const now = performance.now();
    await this.active?.measure(now).catch(() => undefined); // closed between two ticks
    if (!this.call) return;
    const before = JSON.stringify(this.status());
    const line = this.active?.line;
    if (line && line !== this.lines.at(-1)) this.lines = [...this.lines, line].slice(-LINES_KEPT);
    this.#judge();
    if (JSON.stringify(this.status()) !== before || this.lostAt || line !== this.toldLine) this.onChange();
    this.toldLine = line;
    if (this.#needsNewLeg(performance.now())) this.#askForLeg();
  }

  async #listen() {
    const leg = this.active;
    const now = performance.now();
    if (!leg?.connected || (!leg.breathHeld && now - leg.measuredAt < CALM_MS)) return;
    await leg.measure(now).catch(() => undefined); // closed meanwhile
    const silent = performance.now() - leg.lastHeardAt;
    // Where checks of the path went on after sound and picture had ended, the line is there: nothing else is to be said.
    const dead = silent > BREATH_MS && leg.lastHeardAt - leg.lastPacketAt < TICK_MS * 2;
    const hadPictures = leg.lastHeardAt - leg.lastPictureAt < PICTURES_BREATH_MS;
    leg.holdBreath(dead, dead || (silent > PICTURES_BREATH_MS && hadPictures));
  }

  /** Is the line there? While held the kiosk may send nothing, so only the connection itself counts. */
  #judge() {
    if (!this.everConnected) return;
    const leg = this.active;
    const now = performance.now();
    const silent = leg !== null && this.talking && now - leg.lastPacketAt > SILENT_AFTER_MS;
    const over = leg?.state === "failed" || this.#kioskSays(leg) === "lost"; // the kiosk's word comes before the silence
    if (leg && !over && !silent) this.lostAt = 0;
    else this.lostAt ||= leg && silent ? leg.lastPacketAt : now;
  }

  #needsNewLeg(now) {
    if (!this.kioskOnline || now - this.askedAt < ASK_AGAIN_MS) return false;
    const newest = this.legs.at(-1);
    if (!newest) return this.everConnected; // after a reload, while no offer has come
    if (newest.failedAt) return now - newest.failedAt > FAILED_ASK_MS;
    if (!newest.connected) return now - newest.startedAt > CONNECT_ASK_MS;
    return this.lostAt > 0 && now - this.lostAt > SILENT_ASK_MS;
  }

  #askForLeg() {
    const message = { type: "want_new_leg", call: this.call, leg: this.#highestLeg() };
    if (this.send(message)) this.askedAt = performance.now();
  }
}

function video(properties) {
  return Object.assign(document.createElement("video"), { autoplay: true, playsInline: true, muted: true, ...properties });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The number of the last leg answered outlives a reload: the new one must be above it.
const LEG_KEY = "leg-of-call";

function rememberLeg(call, leg) {
  sessionStorage.setItem(LEG_KEY, JSON.stringify({ call, leg }));
}

function rememberedLeg(call) {
  const kept = JSON.parse(sessionStorage.getItem(LEG_KEY) ?? "null");
  return kept?.call === call ? kept.leg : 0;
}
