// Listens and looks inside the doctor's page, from the outside: put in before the page's own scripts, it follows
// every RTCPeerConnection the page makes and records the far sound, and the doctor's own as it leaves the microphone;
// it reads the numbers off the pictures that a video or canvas element really shows. It changes nothing the page can
// notice.
(() => {
  const proof = { sounds: [], spoken: [], pictures: {}, connections: [], errors: [] };
  window.__proof = proof;
  const unixMs = () => performance.timeOrigin + performance.now();

  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class RTCPeerConnection extends Native {
    constructor(...given) {
      super(...given);
      proof.connections.push(this);
      this.addEventListener("track", ({ track }) => {
        if (track.kind === "audio") record(track.clone(), proof.sounds);
      });
    }
  };

  // What the page plays by itself, such as what is said in turns; not its ringing, which goes round and round.
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (...given) {
    if (this.loop) return start.apply(this, given);
    const plane = this.buffer.getChannelData(0);
    const samples = Int16Array.from(plane, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32767))));
    proof.sounds.push({ rate: this.buffer.sampleRate, chunks: [samples], at: [unixMs()], samples: samples.length, heardAt: unixMs() });
    return start.apply(this, given);
  };

  const open = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = async function getUserMedia(...given) {
    const stream = await open.apply(this, given);
    for (const track of stream.getAudioTracks()) record(track.clone(), proof.spoken);
    return stream;
  };

  async function record(track, sounds) {
    if (!window.MediaStreamTrackProcessor) return; // Firefox, which is listened to at its loudspeaker
    const sound = { rate: 0, chunks: [], at: [], samples: 0, heardAt: 0 };
    sounds.push(sound);
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const frames = value.numberOfFrames;
        const plane = new Float32Array(frames);
        value.copyTo(plane, { planeIndex: 0, format: "f32-planar" });
        sound.rate = value.sampleRate;
        value.close();
        const chunk = new Int16Array(frames);
        let loud = false;
        for (let i = 0; i < frames; i++) {
          chunk[i] = Math.max(-32768, Math.min(32767, Math.round(plane[i] * 32767)));
          loud ||= Math.abs(chunk[i]) >= 300;
        }
        sound.at.push(unixMs());
        if (loud && !sound.heardAt) sound.heardAt = unixMs();
        sound.chunks.push(chunk);
        sound.samples += frames;
      }
    } catch (error) {
      proof.errors.push(String(error));
    }
  }

  // One recording as base64 of little-endian int16, and what is known about it; -1 is the newest. `at` is when each
  // piece came, `lengths` how many samples it had. What came before `since` (Unix ms) is left out: hundreds of pieces
  // take a moment in which the page stands still.
  proof.takeSound = async (index, sounds = "sounds", since = 0) => {
    const sound = proof[sounds].at(index);
    const after = sound.at.findIndex((at) => at >= since);
    const first = after < 0 ? sound.at.length : after;
    const [chunks, at] = [sound.chunks.slice(first), sound.at.slice(first)];
    const all = new Int16Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let offset = 0;
    for (const chunk of chunks) { all.set(chunk, offset); offset += chunk.length; }
    const url = await new Promise((resolve) => {
      const file = new FileReader();
      file.onload = () => resolve(file.result);
      file.readAsDataURL(new Blob([all]));
    });
    return {
      rate: sound.rate, startedAt: sound.at[0] ?? 0, heardAt: sound.heardAt, data: url.split(",")[1],
      at, lengths: chunks.map((chunk) => chunk.length),
    };
  };

  // Of the newest connection's far voice: seconds that all its samples together have waited in the buffer, and how many.
  proof.buffered = async () => {
    const reports = [...(await proof.connections.at(-1).getStats()).values()];
    const { jitterBufferDelay, jitterBufferEmittedCount } = reports.find(({ type, kind }) => type === "inbound-rtp" && kind === "audio");
    return [jitterBufferDelay, jitterBufferEmittedCount];
  };

  // Follows what `selector` shows: for each picture its time and the brightness of the cells of its number, row by
  // row. `strip`: {columns, rows, rowPart} as in hardware.numbered.
  proof.watch = (selector, strip) => {
    if (proof.pictures[selector]) return;
    const seen = (proof.pictures[selector] = []);
    const cell = 4;
    const canvas = new OffscreenCanvas(strip.columns * cell, strip.rows * cell);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const look = (element, width, height) => {
      if (!width || !height) return;
      const at = unixMs();
      const tall = strip.rows * Math.floor(height / strip.rowPart);
      pen.drawImage(element, 0, height - tall, width, tall, 0, 0, canvas.width, canvas.height);
      const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
      const levels = [];
      for (let row = 0; row < strip.rows; row++) {
        for (let column = 0; column < strip.columns; column++) {
          let sum = 0;
          for (const y of [1, 2]) {
            for (const x of [1, 2]) sum += data[((row * cell + y) * canvas.width + column * cell + x) * 4 + 1];
          }
          levels.push(sum / 4);
        }
      }
      seen.push([at, levels]);
    };
    let followed = null;
    const follow = () => {
      const element = document.querySelector(selector);
      if (element instanceof HTMLCanvasElement) {
        look(element, element.width, element.height);
      } else if (element instanceof HTMLVideoElement && element !== followed) {
        followed = element;
        const onPicture = () => {
          if (followed !== element) return;
          look(element, element.videoWidth, element.videoHeight);
          element.requestVideoFrameCallback(onPicture);
        };
        element.requestVideoFrameCallback(onPicture);
      }
      requestAnimationFrame(follow);
    };
    follow();
  };
})();
