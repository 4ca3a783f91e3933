"""Chromium's fake devices and the tap, end to end in one browser: what goes in on one connection is heard and seen
on the other."""

import asyncio

import pytest

from tests.e2e.pictures import LOOP, make_camera_file, seen
from tests.e2e.speech import PATIENT, RATE_HZ, heard, speak
from tests.e2e.tap import Tap, open_browser

pytestmark = pytest.mark.e2e

PAGE = """<!doctype html><video id="far" autoplay playsinline></video><script type="module">
const processing = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const own = await navigator.mediaDevices.getUserMedia({ audio: processing, video: true });
const near = new RTCPeerConnection(), far = new RTCPeerConnection();
near.onicecandidate = ({ candidate }) => far.addIceCandidate(candidate);
far.onicecandidate = ({ candidate }) => near.addIceCandidate(candidate);
far.ontrack = ({ streams }) => { document.querySelector("#far").srcObject = streams[0]; };
for (const track of own.getTracks()) near.addTrack(track, own);
await near.setLocalDescription();
await far.setRemoteDescription(near.localDescription);
await far.setLocalDescription();
await near.setRemoteDescription(far.localDescription);
</script>"""


async def test_what_the_fake_devices_give_is_heard_and_seen(tmp_path):
    spoken = speak(*PATIENT, tmp_path / "speech.wav")
    make_camera_file(tmp_path / "camera.y4m")
    async with open_browser(tmp_path / "speech.wav", tmp_path / "camera.y4m") as browser:
        page = await browser.new_page()
        tap = await Tap.put_on(page)
        await page.route("http://localhost:9/", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        await page.goto("http://localhost:9/")
        await tap.watch("#far")
        await page.wait_for_function("__proof.sounds[0]?.heardAt > 0")
        async with asyncio.timeout(40):
            while len((await tap.sound(0)).samples) < 18 * RATE_HZ:
                await page.wait_for_timeout(500)
        sound = await tap.sound(0)
        sightings = await tap.sightings("#far")
        assert await tap.errors() == []
    result = heard(spoken, sound.samples[2 * RATE_HZ :])
    assert result.pesq >= 3.5
    assert result.share >= 0.8
    pictures = seen(sightings[15:], loop=LOOP)
    assert pictures.per_second >= 10
    assert pictures.in_order_share > 0.99
