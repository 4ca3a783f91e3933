// A kiosk's side of a call in a page: makes offers when told, sends a drawn picture and a tone, counts what comes.
"use strict";

const socket = new WebSocket(`ws://${location.host}/standin/kiosk-ws`);
const legs = new Map();
const audio = new AudioContext();
let frame = 0;

const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
document.documentElement.append(canvas);

function draw() {
  const context = canvas.getContext("2d");
  frame += 1;
  const sky = context.createLinearGradient(0, 0, 0, 480);
  sky.addColorStop(0, "#cfe3e8");
  sky.addColorStop(1, "#8fb2a8");
  context.fillStyle = sky;
  context.fillRect(0, 0, 640, 480);
  context.fillStyle = "#6d4c36"; // a head and shoulders, nodding
  context.beginPath();
  context.arc(320, 200 + 8 * Math.sin(frame / 9), 88, 0, 7);
  context.fill();
  context.fillStyle = "#c25b3f";
  context.beginPath();
  context.ellipse(320, 460, 190, 150, 0, 0, 7);
  context.fill();
  context.fillStyle = "#fff";
  context.font = "20px sans-serif";
  context.fillText(`picture ${frame}`, 16, 464);
}
setInterval(draw, 66);

function ownTracks() {
  const tone = audio.createOscillator();
  const target = audio.createMediaStreamDestination();
  tone.frequency.value = 440;
  tone.connect(target);
  tone.start();
  return [...target.stream.getTracks(), ...canvas.captureStream(15).getTracks()];
}

const bare = (sdp) => sdp.replace(/^a=(candidate:.*|end-of-candidates)\r\n/gm, "");

/** With `late`, no candidate goes either way until `offer_rest`. */
async function offer(leg, late) {
  await audio.resume();
  const pc = new RTCPeerConnection();
  legs.set(leg, pc);
  const stream = new MediaStream(ownTracks());
  pc.kept = stream.getTracks();
  const channel = pc.createDataChannel("link", { negotiated: true, id: 0 });
  channel.onopen = () => {
    channel.send(JSON.stringify({ video: { bps: 800_000, height: 480, rate: 15 } }));
    channel.send('{"line":["rubbish"]}');
    channel.send(JSON.stringify({ line: [64, 1200, 2, 0, 410, 40, "stills", "moving", "thin", ""] }));
  };
  for (const track of pc.kept) pc.addTrack(track, stream);
  await pc.setLocalDescription(await pc.createOffer());
  while (pc.iceGatheringState !== "complete") {
    await new Promise((resolve) => pc.addEventListener("icegatheringstatechange", resolve, { once: true }));
  }
  pc.late = late;
  socket.send(JSON.stringify({ leg, sdp: late ? bare(pc.localDescription.sdp) : pc.localDescription.sdp }));
}

async function takeAnswer(pc, sdp) {
  if (pc.signalingState === "stable") return; // said again
  await pc.setRemoteDescription({ type: "answer", sdp: pc.late ? bare(sdp) : sdp });
}

socket.onmessage = async ({ data }) => {
  const message = JSON.parse(data);
  if (message.do === "offer") await offer(message.leg, message.late);
  if (message.do === "offer_rest") socket.send(JSON.stringify({ leg: message.leg, sdp: legs.get(message.leg).localDescription.sdp }));
  if (message.do === "answer") await takeAnswer(legs.get(message.leg), message.sdp);
  if (message.do === "end") for (const pc of legs.values()) pc.close();
};

const newest = () => [...legs.values()].at(-1);

// For tests:
const senders = (on) => Promise.all(newest().getSenders().map((sender, index) => sender.replaceTrack(on ? newest().kept[index] : null)));
window.silence = () => senders(false);
window.speak = () => senders(true);
window.cut = () => newest().close();

/** Energy of what was heard, and frames seen, so far. */
window.heard = async () => {
  const sums = { energy: 0, frames: 0, packets: 0 };
  for (const report of (await newest().getStats()).values()) {
    if (report.type !== "inbound-rtp") continue;
    sums.energy += report.totalAudioEnergy ?? 0;
    sums.frames += report.framesDecoded ?? 0;
    sums.packets += report.packetsReceived ?? 0;
  }
  return sums;
};

/** How bright the newest leg's incoming picture is, 0 to 255: held is black. */
window.brightness = async () => {
  const track = newest().getReceivers().find((one) => one.track.kind === "video").track;
  const video = Object.assign(document.createElement("video"), { muted: true, srcObject: new MediaStream([track]) });
  await video.play();
  const small = Object.assign(document.createElement("canvas"), { width: 16, height: 12 });
  const context = small.getContext("2d");
  context.drawImage(video, 0, 0, 16, 12);
  const { data } = context.getImageData(0, 0, 16, 12);
  return data.reduce((sum, value, index) => (index % 4 === 3 ? sum : sum + value), 0) / (data.length * 0.75);
};
