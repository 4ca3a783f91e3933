/**
 * Speaking in turns, where nothing live fits the patient's line: press, speak, release; and hear what comes, one turn
 * after the other. What is said goes out while it is said, and stays here until the hub has it.
 *
 * @typedef {{turn: string, parts: {packets: string[], last: boolean}[], kept: number, delivered: boolean, heard: boolean}} Said
 * @typedef {{speaking: boolean, elapsedMs: number, hearing: ""|"coming"|"playing", waiting: number,
 *   sent: ""|"sending"|"delivered"|"heard", problem: string}} TurnsStatus
 */

const BITS_PER_SECOND = 8000; // as the kiosk's turns (edge_agent/core/turn_parts.py)
const FRAME_MS = 60;
const PART_MS = 2000; // signature, seal and headers are half a kilobyte a part on the patient's line
const LONGEST_MS = 60_000;
const SHORTEST_MS = 250; // a click is no turn
const HALF_MS = 20_000; // nothing new came: it is heard as far as it came, and the rest when that comes
const RATE = 48_000;
const KEPT_SAID = 8;

export class Turns {
  /** @param {{send: (message: {type: string}) => boolean, onChange: () => void, microphone: () => MediaStreamTrack|null}} page */
  constructor({ send, onChange, microphone }) {
    this.send = send;
    this.onChange = onChange;
    this.microphone = microphone;
    this.call = "";
    this.#reset();
    setInterval(() => this.#giveUpHalves(), 1000);
  }

  #reset() {
    /** @type {Said[]} */
    this.said = [];
    /** @type {Map<string, {parts: Map<number, string[]>, heard: Set<number>, end: number, changedAt: number}>} what comes,
     * in the order in which it began; `heard` are parts of a half turn that was heard before */
    this.coming = new Map();
    this.heard = new Set();
    this.recording = null;
    this.playing = "";
    this.problem = "";
  }

  /** Of which call this page speaks, "" for none. @param {string} call */
  belongTo(call) {
    if (call === this.call) return;
    this.stop();
    this.source?.stop();
    this.call = call;
    this.#reset();
    if (!call) {
      void this.context?.close();
      this.context = null;
    }
  }

  /** The hub is there again: what it may not have is said once more. */
  again() {
    for (const said of this.said) {
      for (let part = said.kept; part < said.parts.length; part += 1) this.#sendPart(said, part);
    }
  }

  // --- speaking

  async start() {
    if (this.recording || !this.call) return;
    const recording = (this.recording = { startedAt: 0, stopped: false, close: () => undefined });
    this.#stopPlaying();
    this.onChange();
    try {
      await this.#record(recording);
      this.problem = "";
    } catch (error) {
      console.warn("turn not recorded: %s", error);
      this.problem =
        error.name === "NoMicrophone" ? "No microphone: the patient cannot hear you." : "This browser cannot record turns. Use a current Chrome or Firefox.";
      recording.close();
      if (this.recording === recording) this.recording = null;
    }
    this.onChange();
  }

  stop() {
    const { recording } = this;
    if (!recording) return;
    recording.stopped = true;
    this.recording = null;
    recording.close();
    this.onChange();
    this.#playNext();
  }

  async #record(recording) {
    const microphone = this.microphone();
    if (!microphone) throw Object.assign(new Error("none"), { name: "NoMicrophone" });
    const context = await this.#opened();
    const track = microphone.clone(); // the call's own stays silent
    track.enabled = true;
    const source = context.createMediaStreamSource(new MediaStream([track]));
    const tap = new AudioWorkletNode(context, "turn-tap", { numberOfInputs: 1, numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    /** @type {Said} */
    const said = { turn: newId(), parts: [], kept: 0, delivered: false, heard: false };
    let packets = [];
    let ms = 0;
    let position = 0;
    const flush = (last) => {
      if (packets.length || (last && said.parts.length)) this.#say(said, packets, last);
      packets = [];
      ms = 0;
    };
    const announce = () => {
      // The other end is told at once that somebody speaks.
      if (!said.parts.length && performance.now() - recording.startedAt >= SHORTEST_MS) this.#say(said, [], false);
    };
    const encoder = new AudioEncoder({
      output: (chunk) => {
        const bytes = new Uint8Array(chunk.byteLength);
        chunk.copyTo(bytes);
        announce();
        if (ms >= PART_MS) flush(false); // so that the last part has something in it
        packets.push(base64(bytes));
        ms += (chunk.duration ?? FRAME_MS * 1000) / 1000;
      },
      error: (error) => console.warn("turn not coded: %s", error),
    });
    encoder.configure({
      codec: "opus", sampleRate: context.sampleRate, numberOfChannels: 1, bitrate: BITS_PER_SECOND,
      opus: { frameDuration: FRAME_MS * 1000, application: "voip", signal: "voice", complexity: 10 },
    });
    tap.port.onmessage = ({ data }) => {
      if (encoder.state !== "configured") return;
      const timestamp = Math.round((position * 1e6) / context.sampleRate);
      encoder.encode(new AudioData({ format: "f32-planar", sampleRate: context.sampleRate, numberOfFrames: data.length, numberOfChannels: 1, timestamp, data }));
      position += data.length;
      if (performance.now() - recording.startedAt > LONGEST_MS && this.recording === recording) this.stop();
    };
    recording.close = () => {
      recording.close = () => undefined;
      source.disconnect();
      track.stop();
      const long = performance.now() - recording.startedAt >= SHORTEST_MS;
      // What the worklet has handed over by now is coded; only then is the turn whole.
      setTimeout(async () => {
        tap.port.onmessage = null;
        await encoder.flush().catch(() => undefined);
        if (long || said.parts.length) flush(true);
        if (encoder.state !== "closed") encoder.close();
      }, 60);
    };
    recording.startedAt = performance.now();
    if (recording.stopped) return recording.close(); // let go while the microphone was being opened
    source.connect(tap);
  }

  /** @param {Said} said @param {string[]} packets @param {boolean} last */
  #say(said, packets, last) {
    if (!this.said.includes(said)) {
      this.said.push(said);
      while (this.said.length > KEPT_SAID && this.said[0].kept === this.said[0].parts.length) this.said.shift();
    }
    said.parts.push({ packets, last });
    this.#sendPart(said, said.parts.length - 1);
    this.onChange();
  }

  #sendPart(said, part) {
    this.send({ type: "say_turn", call: this.call, turn: said.turn, part, ...said.parts[part] });
  }

  /** @param {{call: string, turn: string, kept: number, delivered: boolean, heard: boolean}} mark */
  takeMark({ call, turn, kept, delivered, heard }) {
    const said = this.said.find((one) => one.turn === turn);
    if (call !== this.call || !said) return;
    Object.assign(said, { kept: Math.max(kept, said.kept), delivered, heard });
    this.onChange();
  }

  // --- hearing

  /** @param {{call: string, turn: string, part: number, packets: string[], last: boolean}} sound */
  takeSound({ call, turn, part, packets, last }) {
    if (call !== this.call) return;
    if (this.heard.has(turn)) return this.#sayHeard(turn); // the hub does not know yet
    const coming = this.coming.get(turn) ?? { parts: new Map(), heard: new Set(), end: -1, changedAt: 0 };
    if (coming.heard.has(part) || coming.parts.has(part)) return;
    coming.parts.set(part, packets);
    if (last) coming.end = part;
    coming.changedAt = performance.now();
    this.coming.set(turn, coming);
    this.#playNext();
    this.onChange();
  }

  #giveUpHalves() {
    if (this.coming.size && !this.playing) this.#playNext();
  }

  #playNext() {
    if (this.playing || this.recording) return;
    const now = performance.now();
    for (const [turn, coming] of this.coming) {
      if (isWhole(coming) || (coming.parts.size && now - coming.changedAt > HALF_MS)) return void this.#play(turn, coming);
    }
  }

  async #play(turn, coming) {
    this.playing = turn;
    this.onChange();
    const whole = isWhole(coming);
    const numbers = [...coming.parts.keys()].sort((a, b) => a - b);
    try {
      const context = await this.#opened();
      const samples = await decoded(numbers.flatMap((number) => coming.parts.get(number)));
      if (this.playing !== turn) return;
      if (samples.length) await this.#sound(context, samples);
    } catch (error) {
      console.warn("turn not played: %s", error);
      this.problem = "What the patient said cannot be played in this browser. It will be a voice message of the case.";
    }
    if (this.playing !== turn) return; // cut off: it is heard again afterwards
    this.playing = "";
    for (const number of numbers) {
      coming.heard.add(number);
      coming.parts.delete(number);
    }
    if (whole) {
      this.heard.add(turn);
      this.coming.delete(turn);
      if (!this.problem) this.#sayHeard(turn); // of half a turn the hub keeps the rest, and all of it in the end
    }
    this.#playNext();
    this.onChange();
  }

  #sayHeard(turn) {
    this.send({ type: "turn_heard", call: this.call, turn });
  }

  #sound(context, samples) {
    const buffer = context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = (this.source = context.createBufferSource());
    source.buffer = buffer;
    source.connect(context.destination);
    source.start();
    return new Promise((resolve) => (source.onended = resolve));
  }

  #stopPlaying() {
    this.playing = "";
    this.source?.stop();
  }

  /** One context for both ways, at the rate that Opus counts in where the browser allows it. */
  async #opened() {
    if (!this.context) {
      try {
        this.context = new AudioContext({ sampleRate: RATE });
        this.context.createMediaStreamSource(new MediaStream([this.microphone() ?? silence(this.context)])).disconnect();
      } catch {
        this.context = new AudioContext(); // a browser whose microphone has another rate and may not be resampled
      }
      await this.context.audioWorklet.addModule("/static/js/turn-worklet.js");
    }
    if (this.context.state === "suspended") await this.context.resume();
    return this.context;
  }

  /** @returns {TurnsStatus} */
  status() {
    const newest = this.said.at(-1);
    const coming = [...this.coming.entries()].filter(([turn]) => turn !== this.playing);
    const now = performance.now();
    return {
      speaking: this.recording !== null,
      elapsedMs: this.recording?.startedAt ? now - this.recording.startedAt : 0,
      hearing: this.playing ? "playing" : coming.some(([, one]) => one.parts.size && !isWhole(one) && now - one.changedAt < HALF_MS) ? "coming" : "",
      waiting: coming.filter(([, one]) => isWhole(one)).length,
      sent: !newest ? "" : newest.heard ? "heard" : newest.delivered ? "delivered" : "sending",
      problem: this.problem,
    };
  }
}

const isWhole = ({ parts, heard, end }) => end >= 0 && parts.size + heard.size === end + 1;

const newId = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

const silence = (context) => context.createMediaStreamDestination().stream.getAudioTracks()[0];

/** Samples at 48 kHz. @param {string[]} packets in base64 @returns {Promise<Float32Array>} */
async function decoded(packets) {
  const pieces = [];
  const decoder = new AudioDecoder({
    output: (data) => {
      const piece = new Float32Array(data.numberOfFrames);
      data.copyTo(piece, { planeIndex: 0, format: "f32-planar" });
      pieces.push(piece);
      data.close();
    },
    error: (error) => console.warn("part of a turn not decoded: %s", error),
  });
  decoder.configure({ codec: "opus", sampleRate: RATE, numberOfChannels: 1 });
  packets.forEach((packet, number) => {
    const data = Uint8Array.from(atob(packet), (letter) => letter.charCodeAt(0));
    decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: number * FRAME_MS * 1000, data }));
  });
  await decoder.flush();
  decoder.close();
  const samples = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    samples.set(piece, at);
    at += piece.length;
  }
  return samples;
}
