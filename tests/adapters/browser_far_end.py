"""Headless Chromium in the doctor's place: a page that answers the media process's offer and keeps what it hears."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.async_api import Page, async_playwright

from edge_agent.core import sdp
from edge_agent.core.wire import IceServer

CHROMIUM = "/usr/bin/chromium"

PAGE = """<!doctype html><meta charset="utf-8"><video id="far" autoplay muted playsinline></video><script>
const pieces = [];
let connection, context;
async function answer([offer, iceServers]) {
  const own = await navigator.mediaDevices.getUserMedia({
    audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}, video: true});
  connection = new RTCPeerConnection({iceServers});
  const far = new MediaStream();
  connection.ontrack = async event => {
    far.addTrack(event.track);
    document.getElementById("far").srcObject = far;
    if (event.track.kind !== "audio") return;
    context = new AudioContext({sampleRate: 48000});
    const tap = "registerProcessor('tap', class extends AudioWorkletProcessor {" +
      "process(inputs) { if (inputs[0][0]) this.port.postMessage(inputs[0][0].slice()); return true; } })";
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([tap], {type: "text/javascript"})));
    const node = new AudioWorkletNode(context, "tap");
    node.port.onmessage = message => pieces.push(message.data);
    context.createMediaStreamSource(new MediaStream([event.track])).connect(node);
  };
  await connection.setRemoteDescription({type: "offer", sdp: offer});
  for (const track of own.getTracks()) connection.addTrack(track, own);
  await connection.setLocalDescription();
  if (connection.iceGatheringState !== "complete")
    await new Promise(done => connection.onicegatheringstatechange =
      () => connection.iceGatheringState === "complete" && done());
  return connection.localDescription.sdp;
}
function heard() {
  const all = new Int16Array(pieces.length * 128);
  pieces.forEach((piece, n) => piece.forEach((value, at) =>
    all[n * 128 + at] = Math.max(-32768, Math.min(32767, value * 32767))));
  let text = "";
  const bytes = new Uint8Array(all.buffer);
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
function seen() {
  const video = document.getElementById("far"), quality = video.getVideoPlaybackQuality();
  return {width: video.videoWidth, height: video.videoHeight, pictures: quality.totalVideoFrames};
}
async function plays(base64) {
  const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
  const audio = new Audio(URL.createObjectURL(new Blob([bytes], {type: "audio/ogg"})));
  await new Promise((done, failed) => { audio.oncanplaythrough = done; audio.onerror = () => failed(audio.error); });
  return audio.duration;
}
async function decodes(pictures) {
  const shown = [];
  let error = "";
  const decoder = new VideoDecoder({
    output: frame => { shown.push([frame.displayWidth, frame.displayHeight]); frame.close(); },
    error: problem => error = String(problem)});
  decoder.configure({codec: "vp8", optimizeForLatency: true});
  for (const {key, at, data} of pictures)
    decoder.decode(new EncodedVideoChunk({type: key ? "key" : "delta", timestamp: at * 1000,
      data: Uint8Array.from(atob(data), character => character.charCodeAt(0))}));
  await decoder.flush();
  return {shown, error};
}
</script>"""


class Browser:
    def __init__(self, page: Page) -> None:
        self.page = page

    async def answer(self, offer: bytes, servers: Sequence[IceServer] = ()) -> bytes:
        given = [
            {"urls": list(each.urls), "username": each.username, "credential": each.credential} for each in servers
        ]
        return sdp.compress(await self.page.evaluate("given => answer(given)", [sdp.decompress(offer), given]))

    async def heard(self) -> NDArray[np.int16]:
        return np.frombuffer(base64.b64decode(await self.page.evaluate("heard()")), "<i2")

    async def seen(self) -> dict[str, int]:
        return dict(await self.page.evaluate("seen()"))

    async def call(self, script: str, argument: Any) -> Any:
        return await self.page.evaluate(script, argument)

    async def hang_up(self) -> None:
        await self.page.evaluate("connection.close()")


@contextlib.asynccontextmanager
async def browser(folder: Path, speech: Path) -> AsyncIterator[Browser]:
    """Speaks `speech` in a loop and shows Chromium's own moving picture."""
    with _served(folder) as address:
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=[
                    "--no-sandbox",
                    "--use-fake-ui-for-media-stream",
                    "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={speech}",
                    "--autoplay-policy=no-user-gesture-required",
                ],
            )
            try:
                page = await chromium.new_page()
                await page.goto(address)
                yield Browser(page)
            finally:
                await chromium.close()


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """On localhost: elsewhere a browser gives neither camera nor microphone to a page without HTTPS."""
    (folder / "index.html").write_text(PAGE)
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass
