// One end of a measured call in a browser: it speaks and shows what its fake devices give, and notes when each sound
// was said or played and each numbered picture taken or shown. All times are milliseconds of performance.now().
const strip = { columns: 14, rows: 2, rowPart: 12 }; // as in hardware.numbered
const WIDTH = 640;
const HEIGHT = 480;
const STILL_EVERY_MS = 1000;
const notes = { mouth: [], ear: [], lens: [], screen: [], stills: [], errors: [] };
let own = null;
let pc = null;
let leg = null;

// --- sound

/** The stamps of a track's sound are the times at which it was taken or handed to the loudspeaker. */
async function listen(track, pieces) {
  const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 200 }).readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const plane = new Float32Array(value.numberOfFrames);
      value.copyTo(plane, { planeIndex: 0, format: "f32-planar" });
      const samples = new Int16Array(plane.length);
      for (let i = 0; i < plane.length; i++) samples[i] = Math.max(-32768, Math.min(32767, plane[i] * 32767));
      pieces.push({ at: value.timestamp / 1000, rate: value.sampleRate, samples });
      value.close();
    }
  } catch (error) {
    notes.errors.push(String(error));
  }
}

// --- pictures

const stripCanvas = new OffscreenCanvas(strip.columns * 4, strip.rows * 4);
const stripPen = stripCanvas.getContext("2d", { willReadFrequently: true });
const wholeCanvas = new OffscreenCanvas(WIDTH, HEIGHT);
const wholePen = wholeCanvas.getContext("2d", { willReadFrequently: true });

/** The brightness of the cells of the number, row by row. */
function levels(element, width, height) {
  const tall = strip.rows * Math.floor(height / strip.rowPart);
  stripPen.drawImage(element, 0, height - tall, width, tall, 0, 0, stripCanvas.width, stripCanvas.height);
  const { data } = stripPen.getImageData(0, 0, stripCanvas.width, stripCanvas.height);
  const found = [];
  for (let row = 0; row < strip.rows; row++) {
    for (let column = 0; column < strip.columns; column++) {
      let sum = 0;
      for (const y of [1, 2]) {
        for (const x of [1, 2]) sum += data[((row * 4 + y) * stripCanvas.width + column * 4 + x) * 4 + 1];
      }
      found.push(sum / 4);
    }
  }
  return found;
}

function still(element) {
  wholePen.drawImage(element, 0, 0, WIDTH, HEIGHT);
  const { data } = wholePen.getImageData(0, 0, WIDTH, HEIGHT);
  const grey = new Uint8Array(WIDTH * HEIGHT);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = (data[4 * i] * 299 + data[4 * i + 1] * 587 + data[4 * i + 2] * 114 + 500) / 1000;
  }
  return grey;
}

function watch(element, sightings, stills) {
  let nextStill = 0;
  const see = (now, about) => {
    const { videoWidth: width, videoHeight: height } = element;
    if (width && height) {
      const found = levels(element, width, height);
      sightings.push({ at: stills ? now : (about.captureTime ?? now), levels: found, width, height });
      if (stills && now >= nextStill) {
        nextStill = now + STILL_EVERY_MS;
        stills.push({ at: now, levels: found, grey: still(element) });
      }
    }
    element.requestVideoFrameCallback(see);
  };
  element.requestVideoFrameCallback(see);
}

// --- the call

async function open(withPictures) {
  own = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    video: withPictures && { width: WIDTH, height: HEIGHT, frameRate: 15 },
  });
  void listen(own.getAudioTracks()[0].clone(), notes.mouth);
  if (withPictures) {
    const mirror = document.getElementById("own");
    mirror.srcObject = new MediaStream(own.getVideoTracks());
    watch(mirror, notes.lens, null);
  }
}

function follow(connection, stream) {
  pc = connection;
  const far = document.getElementById("far");
  far.srcObject = stream;
  watch(far, notes.screen, notes.stills);
  pc.addEventListener("track", ({ track }) => {
    stream.addTrack(track);
    if (track.kind === "audio") void listen(track.clone(), notes.ear);
  });
}

async function gathered() {
  if (pc.iceGatheringState === "complete") return;
  await new Promise((resolve) => {
    pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && resolve());
  });
}

/** As the doctor's console does it, with the console's own code. */
async function answerAsConsole(offer, iceServers) {
  const { Leg } = await import("/js/leg.js");
  const nothing = () => undefined;
  leg = new Leg(1, offer, iceServers, nothing, nothing);
  follow(leg.pc, leg.stream);
  const [audio] = own.getAudioTracks();
  const [video] = own.getVideoTracks();
  await leg.answer({ audio, video }, { audio: true, video: true });
  return leg.sdp;
}

/** The kiosk's offer again, with more candidates; and our answer, with those that have come by now. */
const addCandidates = (offer) => leg.addCandidates(offer);
const answerByNow = () => leg.sdp;

/** How the connection goes: the types of the two candidates, and our way to a relay. */
async function chosenPair() {
  const reports = await pc.getStats();
  for (const report of reports.values()) {
    if (report.type !== "transport" || !report.selectedCandidatePairId) continue;
    const pair = reports.get(report.selectedCandidatePairId);
    return [pair.localCandidateId, pair.remoteCandidateId].map((id) => reports.get(id).candidateType);
  }
  return [];
}

function redFirst() {
  const { codecs } = RTCRtpSender.getCapabilities("audio");
  const isRed = (codec) => codec.mimeType.toLowerCase() === "audio/red";
  const ordered = [...codecs.filter(isRed), ...codecs.filter((codec) => !isRed(codec))];
  for (const transceiver of pc.getTransceivers()) {
    if (transceiver.receiver.track.kind === "audio") transceiver.setCodecPreferences(ordered);
  }
}

async function makeOffer(red) {
  follow(new RTCPeerConnection(), new MediaStream());
  for (const track of own.getTracks()) pc.addTrack(track, own);
  if (red) redFirst();
  await pc.setLocalDescription();
  await gathered();
  return pc.localDescription.sdp;
}

async function makeAnswer(offer, red) {
  follow(new RTCPeerConnection(), new MediaStream());
  await pc.setRemoteDescription({ type: "offer", sdp: offer });
  for (const track of own.getTracks()) pc.addTrack(track, own);
  if (red) redFirst();
  await pc.setLocalDescription();
  await gathered();
  return pc.localDescription.sdp;
}

async function takeAnswer(answer) {
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
}

/** By hand: what setParameters can do. */
async function limitSending(voiceBps, videoBps, scaleDown, pictureRate) {
  for (const sender of pc.getSenders()) {
    if (!sender.track) continue;
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings) {
      if (sender.track.kind === "audio") encoding.maxBitrate = voiceBps;
      else {
        Object.assign(encoding, {
          maxBitrate: videoBps, scaleResolutionDownBy: scaleDown, maxFramerate: pictureRate,
        });
      }
    }
    await sender.setParameters(parameters);
  }
}

/** Counts since the start, of what matters here. */
async function counts() {
  const found = { state: pc.connectionState };
  for (const report of (await pc.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "audio") {
      found.concealed = report.concealedSamples;
      found.played = report.totalSamplesReceived;
    }
    if (report.type === "inbound-rtp" && report.kind === "video") {
      found.width = report.frameWidth;
      found.height = report.frameHeight;
    }
  }
  return found;
}

// --- handing it over

const BASE64_PART = 3 * 8192;

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += BASE64_PART) {
    text += btoa(String.fromCharCode(...bytes.subarray(at, at + BASE64_PART)));
  }
  return text;
}

/** `name` is mouth or ear: stamps, rates and lengths of the pieces since it was last asked, and their samples one after
 * another. */
function takeSound(name) {
  const pieces = notes[name].splice(0);
  const samples = new Int16Array(pieces.reduce((sum, piece) => sum + piece.samples.length, 0));
  let at = 0;
  for (const piece of pieces) {
    samples.set(piece.samples, at);
    at += piece.samples.length;
  }
  return {
    at: pieces.map((piece) => piece.at),
    rate: pieces.map((piece) => piece.rate),
    length: pieces.map((piece) => piece.samples.length),
    samples: base64(new Uint8Array(samples.buffer)),
  };
}

function takeStill(index) {
  const { at, levels: found, grey } = notes.stills[index];
  return { at, levels: found, grey: base64(grey) };
}

window.bench = {
  notes, open, answerAsConsole, addCandidates, answerByNow, chosenPair, makeOffer, makeAnswer, takeAnswer, limitSending, counts, takeSound, takeStill,
  now: () => performance.now(),
};
