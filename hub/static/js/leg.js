/**
 * One leg: one RTCPeerConnection that answers one offer of the kiosk. A call has several when the line dies and
 * comes back; `call.js` decides which one is heard.
 *
 * @typedef {import("./devices.js").Kind} Kind
 */

// Firefox does not read what the kiosk's offer asks of pictures (x-google-max-bitrate), and by itself spends no less than
// 200 kbit/s on 640×480: what is asked for is set by hand, at a size that it can be spent on.
const READS_PICTURE_LIMIT = !navigator.userAgent.includes("Firefox/");
const SMALLER = [
  { belowKbps: 60, height: 120, rate: 5 },
  { belowKbps: 150, height: 240, rate: 10 },
];

const GATHER_MS = 500; // on a LAN it takes some ten; what a far TURN server gives follows the answer

export class Leg {
  /**
   * @param {number} number as the kiosk counts them, from 1
   * @param {string} offer
   * @param {RTCIceServer[]} iceServers
   * @param {() => void} onChange the connection's state changed
   * @param {() => void} onCandidates there is more in `sdp` than before
   */
  constructor(number, offer, iceServers, onChange, onCandidates) {
    this.number = number;
    this.offer = offer;
    this.sdp = ""; // the whole answer, with the candidates so far, once it is made
    /** @type {Promise<void>} the offer is taken in */
    this.described = new Promise(() => undefined);
    this.startedAt = performance.now();
    this.stream = new MediaStream();
    this.failedAt = 0;
    this.connected = false;
    this.breathHeld = false;
    this.picturesHeld = false;
    this.measuredAt = -Infinity;
    this.rests = false;
    this.packets = 0;
    this.lastPacketAt = performance.now();
    this.checks = 0;
    this.lastHeardAt = performance.now();
    this.pictures = 0;
    this.lastPictureAt = performance.now();
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.pc.onicecandidate = () => {
      if (!this.sdp || this.pc.localDescription.sdp === this.sdp) return;
      this.sdp = this.pc.localDescription.sdp;
      if (!this.connected) onCandidates();
    };
    this.pc.ontrack = ({ track }) => this.stream.addTrack(track);
    this.pc.onconnectionstatechange = () => {
      const state = this.pc.connectionState;
      if (state === "connected") {
        this.connected = true;
        this.failedAt = 0;
        this.lastPacketAt = this.lastPictureAt = this.lastHeardAt = performance.now();
      } else if (state === "failed" || state === "closed") this.failedAt ||= performance.now();
      onChange();
    };
  }

  get state() {
    return this.failedAt ? "failed" : this.pc.connectionState;
  }

  /**
   * @param {Record<Kind, MediaStreamTrack|null>} tracks
   * @param {Record<Kind, boolean>} willSend whether a track is there or may still come
   */
  async answer(tracks, willSend) {
    this.described = this.pc.setRemoteDescription({ type: "offer", sdp: this.offer });
    await this.described;
    for (const transceiver of this.pc.getTransceivers()) {
      const kind = /** @type {Kind} */ (transceiver.receiver.track.kind);
      transceiver.direction = willSend[kind] ? "sendrecv" : "recvonly";
      if (tracks[kind]) await transceiver.sender.replaceTrack(tracks[kind]);
      // A browser learns its buffer's length from packets that come, not from copies that come a packet later: it would
      // play a gap before the copy is there.
      if (kind === "audio") /** @type {any} */ (transceiver.receiver).jitterBufferTarget = copiesAfterMs(this.offer);
    }
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    if (!READS_PICTURE_LIMIT) await this.#limitPictures();
    await this.#gathered();
    this.sdp = this.pc.localDescription.sdp;
  }

  /** Whether this is our offer, but for its candidates. @param {string} offer */
  isOf(offer) {
    return ufragOf(offer) === ufragOf(this.offer);
  }

  /** The kiosk's offer again, with what its own servers have told it since. @param {string} offer */
  async addCandidates(offer) {
    const known = new Set(candidatesOf(this.offer));
    this.offer = offer;
    await this.described;
    for (const candidate of candidatesOf(offer)) {
      if (!known.has(candidate)) await this.pc.addIceCandidate({ candidate, sdpMLineIndex: 0 });
    }
  }

  /** The tracks of a device that came late, or was plugged in again. @param {Record<Kind, MediaStreamTrack|null>} tracks */
  setTracks(tracks) {
    for (const transceiver of this.pc.getTransceivers()) {
      const { sender, receiver, stopped } = /** @type {any} */ (transceiver);
      const track = tracks[receiver.track.kind];
      if (!stopped && sender.track !== track) void sender.replaceTrack(track).catch(() => undefined);
    }
  }

  /** Count what arrived since the last time. @param {number} now */
  async measure(now) {
    let packets = 0;
    let pictures = 0;
    let checks = 0; // of the path, which go on when nothing else does
    for (const report of (await this.pc.getStats()).values()) {
      if (report.type === "candidate-pair") checks += (report.requestsReceived ?? 0) + (report.responsesReceived ?? 0);
      if (report.type !== "inbound-rtp") continue;
      packets += report.packetsReceived ?? 0;
      pictures += report.framesDecoded ?? 0;
    }
    this.measuredAt = now;
    if (packets > this.packets) this.lastPacketAt = now;
    if (pictures > this.pictures) this.lastPictureAt = now;
    if (packets > this.packets || checks > this.checks) this.lastHeardAt = now;
    [this.packets, this.pictures, this.checks] = [packets, pictures, checks];
  }

  /** Into a line from which nothing comes nothing goes: in an outage a modem keeps what it is given, and gives that out
   * before anything new. @param {boolean} held @param {boolean} pictures */
  holdBreath(held, pictures) {
    if (this.breathHeld === held && this.picturesHeld === pictures) return;
    this.breathHeld = held;
    this.picturesHeld = pictures;
    this.#setActive();
  }

  /** Nothing but reports goes while the line is for what is said in turns: even silence and black are a third of it.
   * @param {boolean} rests */
  rest(rests) {
    if (this.rests === rests) return;
    this.rests = rests;
    this.#setActive();
  }

  #setActive() {
    for (const sender of this.pc.getSenders()) {
      const parameters = sender.getParameters();
      const held = sender.track?.kind === "video" ? this.picturesHeld : this.breathHeld;
      for (const encoding of parameters.encodings) encoding.active = !held && !this.rests;
      if (parameters.encodings.length) void sender.setParameters(parameters).catch(() => undefined); // closed meanwhile
    }
  }

  async #limitPictures() {
    const kbps = Number(this.offer.match(/x-google-max-bitrate=(\d+)/)?.[1]);
    const sender = this.pc.getTransceivers().find(({ receiver }) => receiver.track.kind === "video")?.sender;
    const parameters = sender?.getParameters();
    if (!kbps || !parameters?.encodings.length) return;
    const smaller = SMALLER.find(({ belowKbps }) => kbps < belowKbps);
    for (const encoding of parameters.encodings) {
      encoding.maxBitrate = kbps * 1000;
      if (!smaller) continue;
      encoding.maxFramerate = smaller.rate;
      encoding.scaleResolutionDownBy = Math.max(1, (sender.track?.getSettings().height ?? 480) / smaller.height);
    }
    await sender.setParameters(parameters);
  }

  fail() {
    this.failedAt ||= performance.now();
  }

  close() {
    this.pc.onconnectionstatechange = this.pc.onicecandidate = null;
    this.pc.close();
  }

  #gathered() {
    const { pc } = this;
    if (pc.iceGatheringState === "complete") return Promise.resolve();
    return new Promise((resolve) => {
      setTimeout(resolve, GATHER_MS);
      pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve(undefined));
    });
  }
}

/** @param {string} sdp */
const candidatesOf = (sdp) => sdp.match(/(?<=^a=)candidate:.*$/gm)?.map((line) => line.trimEnd()) ?? [];

const LATE_MS = 20; // of copies too

/** How late the copy of a lost packet is here at most, null where none come. A kiosk speaks as it asks us to: in packets as
 * long, repeated or not. @param {string} sdp */
function copiesAfterMs(sdp) {
  const audio = sdp.match(/^m=audio \d+ \S+ (\d+)[^]*?(?=^m=|$(?![^]))/m);
  const ms = Number(audio?.[0].match(/^a=ptime:(\d+)/m)?.[1]);
  const repeated = audio && new RegExp(`^a=rtpmap:${audio[1]} red/`, "m").test(audio[0]);
  return repeated && ms ? 2 * ms + LATE_MS : null;
}

/** @param {string} sdp */
const ufragOf = (sdp) => sdp.match(/^a=ice-ufrag:(\S+)/m)?.[1];
