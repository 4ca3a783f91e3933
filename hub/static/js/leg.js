/**
 * One leg: one RTCPeerConnection that answers one offer of the kiosk. A call has several when the line dies and
 * comes back; `call.js` decides which one is heard.
 *
 * @typedef {import("./devices.js").Kind} Kind
 *
 * How the line is, as the kiosk has measured it: kbit/s, percent lost and what is sent of pictures, up (from the clinic) and down;
 * the round trip and the queue of what the kiosk sends in ms; why there is not more.
 * @typedef {{up: number, down: number, lostUp: number, lostDown: number, rtt: number, queue: number, picturesUp: string,
 *   picturesDown: string, whyUp: string, whyDown: string}} Line
 */

import { StillSender } from "./still.js";

// What the kiosk tells over a data channel of the call (`edge_agent/core/steering.py`): how the pictures and the voice are
// to be sent, so that they fit its link. Until it has said so no pictures go.
const CHANNEL = { label: "link", id: 0 };
const STILLS = { label: "stills", id: 1 };
const FIELDS = {
  video: { bps: [1000, 1e7], height: [16, 2160], rate: [0.01, 120] },
  still: { every: [1, 600], bytes: [500, 20_000], height: [16, 480], bps: [1000, 1e6] },
  voice: { bps: [6000, 510_000], ms: [10, 120], hz: [8000, 48_000], fec: [0, 1], dtx: [0, 1], red: [0, 1] },
  all: { most: [0, 1e6] },
};

const GATHER_MS = 500; // on a LAN it takes some ten; what a far TURN server gives follows the answer

export class Leg {
  /**
   * @param {number} number as the kiosk counts them, from 1
   * @param {string} offer
   * @param {RTCIceServer[]} iceServers
   * @param {() => void} onChange the connection's state changed
   * @param {() => void} onCandidates there is more in `sdp` than before
   * @param {import("./photo.js").SharpPhoto} [photo] takes what comes of one
   */
  constructor(number, offer, iceServers, onChange, onCandidates, photo) {
    this.photo = photo;
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
    /** @type {{bps: number, height: number, rate: number}|null} as the kiosk asks for them; null: none */
    this.video = null;
    this.asked = ""; // of the voice, and of all together
    /** @type {Line|null} */
    this.line = null;
    this.applied = Promise.resolve(); // one change of parameters after another
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.channel = this.pc.createDataChannel(CHANNEL.label, { negotiated: true, id: CHANNEL.id });
    this.channel.binaryType = "arraybuffer";
    this.channel.onmessage = ({ data }) => (typeof data === "string" ? this.#obey(data) : this.photo?.take(data));
    const stills = this.pc.createDataChannel(STILLS.label, { negotiated: true, id: STILLS.id, ordered: false, maxRetransmits: 0 });
    this.stills = new StillSender(stills, {
      track: () => this.#sender("video")?.track ?? null,
      voice: () => this.#voiceSent(),
      isQuiet: () => this.rests || this.breathHeld || this.picturesHeld || this.pc.connectionState !== "connected",
    });
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
    }
    await this.#setAnswer(this.offer);
    await this.#apply();
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
      if (!stopped && sender.track !== track) void sender.replaceTrack(track).then(() => this.#apply(), () => undefined);
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
    void this.#apply();
  }

  /** Nothing but reports goes while the line is for what is said in turns: even silence and black are a third of it.
   * @param {boolean} rests */
  rest(rests) {
    if (this.rests === rests) return;
    this.rests = rests;
    void this.#apply();
  }

  /** What the kiosk asks for. @param {string} text */
  #obey(text) {
    let order;
    try {
      order = JSON.parse(text);
    } catch {
      return console.warn("an order that is none");
    }
    if (Array.isArray(order?.got)) this.stills.told(order.got);
    if (order?.photo === 0) this.photo?.fail();
    if (Array.isArray(order?.line)) this.line = lineOf(order.line) ?? this.line;
    if (order?.video === null || isOrder(order?.video, FIELDS.video)) {
      this.video = order.video;
      void this.#apply();
      this.stills.obey(this.video === null && isOrder(order.still, FIELDS.still) ? order.still : null);
    }
    const all = { most: order?.most ?? 0 };
    const described = JSON.stringify([order?.voice, all]);
    if (isOrder(order?.voice, FIELDS.voice) && isOrder(all, FIELDS.all) && described !== this.asked) {
      // What the offer asks for already is no change.
      const offer = asking(this.offer, order.voice, all.most);
      this.asked = described;
      if (offer !== this.offer) this.applied = this.applied.then(() => this.#describe(offer)).catch((error) => console.warn("voice stays as it is: %s", error));
    }
  }

  /** The offer as if it had asked for the voice in this way: the kiosk need not hear of it, and nothing else changes. */
  async #describe(offer) {
    if (this.pc.signalingState !== "stable") return;
    await this.pc.setRemoteDescription({ type: "offer", sdp: offer });
    await this.#setAnswer(offer);
    this.offer = offer;
  }

  /** @param {string} offer */
  async #setAnswer(offer) {
    const answer = await this.pc.createAnswer();
    try {
      await this.pc.setLocalDescription({ type: "answer", sdp: /x-google-max-bitrate/.test(offer) ? withoutPadding(answer.sdp ?? "") : answer.sdp });
    } catch {
      await this.pc.setLocalDescription(answer); // a browser that takes its own words only
    }
  }

  /** Whether the kiosk was asked for a sharp photo. */
  askForPhoto() {
    if (this.channel.readyState !== "open") return false;
    this.channel.send('{"photo":1}');
    return true;
  }

  #apply() {
    this.applied = this.applied.then(() => this.#setParameters()).catch(() => undefined); // closed meanwhile
    return this.applied;
  }

  async #setParameters() {
    for (const { sender, receiver } of this.pc.getTransceivers()) {
      const parameters = sender.getParameters();
      if (!parameters.encodings?.length) continue;
      const isVideo = receiver.track.kind === "video";
      for (const encoding of parameters.encodings) {
        encoding.active = !this.rests && (isVideo ? !this.picturesHeld && this.video !== null : !this.breathHeld);
        if (!isVideo || !this.video) continue;
        encoding.maxBitrate = this.video.bps;
        encoding.maxFramerate = this.video.rate;
        encoding.scaleResolutionDownBy = Math.max(1, (sender.track?.getSettings().height ?? 480) / this.video.height);
      }
      await sender.setParameters(parameters);
    }
  }

  /** @param {Kind} kind */
  #sender(kind) {
    return this.pc.getTransceivers().find(({ receiver }) => receiver.track.kind === kind)?.sender;
  }

  /** Since the start, without what is around RTP. */
  async #voiceSent() {
    const sent = { bytes: 0, packets: 0 };
    for (const report of (await this.#sender("audio").getStats()).values()) {
      if (report.type !== "outbound-rtp") continue;
      sent.bytes += report.bytesSent + (report.headerBytesSent ?? 0);
      sent.packets += report.packetsSent;
    }
    return sent;
  }

  fail() {
    this.failedAt ||= performance.now();
  }

  close() {
    this.stills.close();
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

/** Whether all that belongs in it is there, and within its bounds. */
const isOrder = (order, fields) =>
  typeof order === "object" && order !== null && Object.entries(fields).every(([name, [least, most]]) => Number(order[name]) >= least && Number(order[name]) <= most);

/** @param {any[]} told @returns {Line|null} */
function lineOf(told) {
  const [numbers, words] = [told.slice(0, 6), told.slice(6, 10)];
  if (!numbers.every((number) => Number.isFinite(number) && number >= 0) || !words.every((word) => typeof word === "string")) return null;
  const [up, down, lostUp, lostDown, rtt, queue] = numbers;
  const [picturesUp, picturesDown, whyUp, whyDown] = words;
  return told.length < 10 ? null : { up, down, lostUp, lostDown, rtt, queue, picturesUp, picturesDown, whyUp, whyDown };
}

/**
 * @param {string} offer
 * @param {{bps: number, ms: number, hz: number, fec: boolean, dtx: boolean, red: boolean}} voice
 * @param {number} most kbit/s of all together, for the browser's own estimator: what it begins with, and may try; 0: what it likes
 */
function asking(offer, { bps, ms, hz, fec, dtx, red }, most) {
  const opus = offer.match(/^a=rtpmap:(\d+) opus\/48000/m)?.[1];
  const both = offer.match(/^a=rtpmap:(\d+) red\/48000/m)?.[1];
  if (!opus) return offer;
  const first = both && red ? `${both} ${opus}` : both ? `${opus} ${both}` : opus;
  return offer
    .replace(/^(m=audio \d+ \S+) [\d ]+$/m, `$1 ${first}`)
    .replace(
      new RegExp(`^a=fmtp:${opus} .*$`, "m"),
      `a=fmtp:${opus} maxaveragebitrate=${bps};maxplaybackrate=${hz};minptime=${ms};stereo=0;usedtx=${Number(dtx)};useinbandfec=${Number(fec)}`,
    )
    .replace(/^a=(ptime|maxptime):\d+$/gm, `a=$1:${ms}`)
    .replace(/^a=fmtp:\d+ x-google-.*\r?\n/m, "")
    .replace(/^a=rtpmap:(\d+) VP8\/90000(\r?\n)/m, (line, vp8, end) => (most ? `${line}a=fmtp:${vp8} x-google-start-bitrate=${most};x-google-max-bitrate=${most}${end}` : line));
}

/**
 * Without a stream of its own for what is sent again: Chromium fills that with padding, 5 kB of it before the voice,
 * whenever it tries what the link carries. Lost packets then go again as they were.
 * @param {string} sdp
 */
function withoutPadding(sdp) {
  const repeats = sdp.match(/^a=ssrc-group:FID \d+ (\d+)/m)?.[1];
  return repeats ? sdp.replace(new RegExp(`^a=(ssrc-group:FID \\d+ ${repeats}|ssrc:${repeats} .*)\r?\n`, "gm"), "") : sdp;
}

/** @param {string} sdp */
const candidatesOf = (sdp) => sdp.match(/(?<=^a=)candidate:.*$/gm)?.map((line) => line.trimEnd()) ?? [];

/** @param {string} sdp */
const ufragOf = (sdp) => sdp.match(/^a=ice-ufrag:(\S+)/m)?.[1];
