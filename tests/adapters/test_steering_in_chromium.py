"""The doctor's browser sends as the kiosk tells it over the call's data channel, by the console's own code."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import pytest

from edge_agent import ipc
from edge_agent.core import sdp
from tests.adapters.browser_far_end import Browser, browser
from tests.adapters.media_bench import CALL, MediaBench
from tests.e2e import speech

JS = Path(__file__).resolve().parents[2] / "hub" / "static" / "js"
ANSWER = """async offer => {
  const { Leg } = await import("/js/leg.js");
  const { SharpPhoto } = await import("/js/photo.js");
  const own = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 480 } });
  window.photo = new SharpPhoto(() => undefined);
  window.leg = new Leg(1, offer, [], () => undefined, () => undefined, photo);
  const [audio, video] = [own.getAudioTracks()[0], own.getVideoTracks()[0]];
  await leg.answer({ audio, video }, { audio: true, video: true });
  return leg.sdp;
}"""
SENDS = """async () => {
  const reports = [...(await leg.pc.getStats()).values()].filter(({ type }) => type === "outbound-rtp");
  const [audio, video] = ["audio", "video"].map(kind => reports.find(report => report.kind === kind));
  const { sender } = leg.pc.getTransceivers().find(({ receiver }) => receiver.track.kind === "video");
  const { active, maxBitrate } = sender.getParameters().encodings[0];
  const ptime = leg.pc.remoteDescription.sdp.match(/a=ptime:(\\d+)/)[1];
  const [width, frames] = [video?.frameWidth ?? 0, video?.framesSent ?? 0];
  return { width, frames, active, bps: maxBitrate, packets: audio.packetsSent, ptime, at: performance.now() };
}"""


GARBAGE = """() => {
  const wide = [0x10, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0];
  let number = 250; // older than those that follow
  leg.channel.send(new Uint8Array([9, 0, 0, 0, 1, 1]));
  for (const still of [[..."RIFFabcdWEBPVP8X"], wide, [1], [..."\\x89PNG"], []]) {
    const bytes = still.map((each) => (typeof each === "string" ? each.charCodeAt(0) : each));
    leg.stills.channel.send(new Uint8Array([number++, 0, 0, 0, bytes.length, ...bytes]));
  }
  leg.stills.channel.send(new Uint8Array([9, 0xff, 0xff, 0xff, 0xff, 1]));
  for (const channel of [leg.channel, leg.stills.channel]) channel.send("{");
}"""


def _decoded(frame: bytes) -> Any:
    decoder: Any = av.CodecContext.create("libvpx", "r")
    (picture,) = decoder.decode(av.Packet(frame))
    return picture.to_ndarray(format="bgr24")


@contextlib.asynccontextmanager
async def both_ends(tmp_path: Path, kbps: int) -> AsyncIterator[tuple[Browser, MediaBench]]:
    """A page with the console's own modules, and the kiosk's media process; `kbps`: what that is told, 0: nothing."""
    speech.speak(*speech.DOCTOR, tmp_path / "doctor.wav")
    page = tmp_path / "page"
    page.mkdir()
    shutil.copytree(JS, page / "js")
    devices = {"camera": "synthetic", "microphone": "none", "speaker": "null", "board": "none"}
    link = {"link": {"up_kbps": kbps, "down_kbps": kbps}}
    async with (
        browser(page, tmp_path / "doctor.wav") as far,
        MediaBench(tmp_path, devices, settings=link).running() as bench,
    ):
        yield far, bench


async def sends(far: Browser) -> dict[str, Any]:
    return dict(await far.page.evaluate(SENDS))


@pytest.mark.parametrize(
    ("kbps", "width", "ptime"), [(32, 0, "60"), (64, 160, "60"), (0, 640, "20")], ids=["32", "64", "unknown"]
)
async def test_a_browser_sends_what_the_link_carries(tmp_path: Path, kbps: int, width: int, ptime: str) -> None:
    async with both_ends(tmp_path, kbps) as (far, bench):
        bench.send(ipc.StartCall(CALL, 1, (), held=True))
        offer = sdp.decompress((await bench.expect(ipc.OfferMade)).sdp)
        answer = await far.page.evaluate(ANSWER, offer)
        assert not (await sends(far))["active"], "pictures before anybody knew what the link carries"
        bench.send(ipc.TakeAnswer(CALL, 1, sdp.compress(answer)))
        await bench.expect(ipc.MediaConnected)
        bench.send(ipc.Unhold(CALL))
        await far.page.wait_for_function("leg.asked")  # the first order is there
        if width:
            await bench.expect(ipc.FirstSeen, within_s=4)
            await far.page.wait_for_function(f"async () => (await ({SENDS})()).width === {width}", timeout=8000)
        before = await sends(far)
        await bench.stays(4)
        after = await sends(far)
        assert after["active"] == bool(width)
        assert after["ptime"] == ptime
        seconds = (after["at"] - before["at"]) / 1000
        rate = (after["frames"] - before["frames"]) / seconds
        assert {0: rate == 0, 160: 3 <= rate <= 8.5, 640: rate >= 10}[width], rate
        assert (after["packets"] - before["packets"]) / seconds <= 1000 / int(ptime) + 2

        # What is no order changes nothing.
        for text in ("{", "null", '{"video":{"bps":1e99,"height":120,"rate":5}}', '{"video":7,"voice":{"ms":1}}'):
            await far.page.evaluate("text => leg.channel.onmessage({ data: text })", text)
        assert (await sends(far))["bps"] == after["bps"]


async def test_a_browser_sends_stills_where_the_link_carries_no_more(tmp_path: Path) -> None:
    async with both_ends(tmp_path, 32) as (far, bench):
        bench.send(ipc.StartCall(CALL, 1, (), held=True))
        offer = sdp.decompress((await bench.expect(ipc.OfferMade)).sdp)
        bench.send(ipc.TakeAnswer(CALL, 1, sdp.compress(await far.page.evaluate(ANSWER, offer))))
        await bench.expect(ipc.MediaConnected)
        await far.page.wait_for_function(
            "leg.channel.readyState === 'open' && leg.stills.channel.readyState === 'open'"
        )
        # What a page may send that is not ours: it ends nothing, and none of it is shown.
        await far.page.evaluate(GARBAGE)
        bench.send(ipc.Unhold(CALL))
        await far.page.wait_for_function("leg.stills.order")
        await far.page.evaluate(GARBAGE)
        stills = await bench.expect_pictures(2, within_s=20)
        bench.at(ipc.FirstSeen)
        assert all(still.still and still.key and still.kind == "vp8" and len(still.data) <= 3000 for still in stills)
        shown = [_decoded(still.data) for still in stills]
        assert [picture.shape for picture in shown] == [(240, 320, 3)] * 2
        assert shown[0].std() > 20, "the camera's picture, not black"
        assert 3 <= bench.at_picture(1) - bench.at_picture(0) <= 9

        # A camera that is switched off is told at once, and what was under way of the last still goes no further.
        before = len(bench.frames)
        await far.page.evaluate("leg.stills.track().enabled = false")
        dark = (await bench.expect_pictures(1, within_s=4, after=before))[0]
        assert _decoded(dark.data).max() < 40

        # While the line rests, and when pictures move, nothing more of them goes.
        for quiet in ("leg.rest(true)", """leg.rest(false), leg.channel.onmessage({ data: '{"video":null}' })"""):
            await far.page.evaluate(quiet)
            assert not await far.page.evaluate(
                "new Promise(done => { leg.stills.channel = { readyState: 'open', bufferedAmount: 0,"
                " send: () => done(true) }; setTimeout(() => done(false), 1500); })"
            )


async def test_a_sharp_photo_beside_a_call_on_a_thin_link(tmp_path: Path) -> None:
    async with both_ends(tmp_path, 64) as (far, bench):
        bench.send(ipc.StartCall(CALL, 1, (), held=True))
        offer = sdp.decompress((await bench.expect(ipc.OfferMade)).sdp)
        bench.send(ipc.TakeAnswer(CALL, 1, sdp.compress(await far.page.evaluate(ANSWER, offer))))
        await bench.expect(ipc.MediaConnected)
        bench.send(ipc.Unhold(CALL))
        await far.page.wait_for_function("leg.asked")
        await bench.expect(ipc.FirstSeen, within_s=6)
        began = time.monotonic()
        await far.page.evaluate("() => { photo.wait(); leg.askForPhoto(); }")
        await far.page.wait_for_function("photo.url", timeout=5000)
        thumbnail_s = time.monotonic() - began
        await far.page.wait_for_function("photo.url && !photo.asked", timeout=25_000)
        whole_s = time.monotonic() - began
        size, width = await far.page.evaluate(
            "async () => { const image = new Image(); image.src = photo.url; await image.decode();"
            " return [photo.bytes.length, image.naturalWidth]; }"
        )
        print(f"the thumbnail after {thumbnail_s:.1f} s, all after {whole_s:.1f} s, the last stage {size} bytes")
        assert width == 640
        assert size <= 90_000
        assert whole_s <= 20
        after = len(bench.frames)
        sent = await bench.expect(ipc.CallStats, after=after)
        await bench.expect(ipc.CallStats, lambda stats: stats.pictures_sent > sent.pictures_sent + 5, after=after)
