"""Two of aiortc's peer connections with the kit's transport between them: paced, numbered, reported."""

from __future__ import annotations

import asyncio
import subprocess
import sys

PAIR = """
import asyncio
from aiortc import RTCPeerConnection, RTCSessionDescription
import numpy as np
from aiortc.mediastreams import AudioStreamTrack
from edge_agent.core.pacer import Kind
from edge_agent.core.voice import PicturePlan
from edge_agent.media import hooks
from edge_agent.media.egress import egress_of
from edge_agent.media.tracks import CameraTrack
from hardware.api import Picture

hooks.install()

async def at_once():
    pass

async def film(cameras):
    loop = asyncio.get_running_loop()
    pixels = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    while True:
        pixels = np.roll(pixels, 3, 1)
        for camera in cameras:
            camera.see(Picture(pixels, loop.time()))
        await asyncio.sleep(1 / 30)

async def main():
    near, far = RTCPeerConnection(), RTCPeerConnection()
    channel = near.createDataChannel("notes")
    got = asyncio.get_running_loop().create_future()
    far.on("datachannel", lambda other: other.on("message", got.set_result))
    channel.on("open", lambda: channel.send("over the pacer"))
    fates, cameras = {}, []
    for name, connection in (("near", near), ("far", far)):
        connection.addTrack(AudioStreamTrack())
        cameras.append(CameraTrack(False, PicturePlan(200_000, 160, 120, 30.0), at_once))
        connection.addTrack(cameras[-1])
        fates[name] = []
    await near.setLocalDescription(await near.createOffer())
    text = near.localDescription.sdp
    assert text.count("transport-wide-cc-extensions-01") == 2, text
    assert text.count("a=extmap:") == 2, text
    assert "a=rtcp-fb:96 transport-cc" in text and "a=rtcp-fb:97 transport-cc" in text, text
    await far.setRemoteDescription(near.localDescription)
    await far.setLocalDescription(await far.createAnswer())
    await near.setRemoteDescription(far.localDescription)
    ends = {"near": egress_of(near.getSenders()[0]), "far": egress_of(far.getSenders()[0])}
    done = asyncio.Event()
    for name, egress in ends.items():
        def listen(told, name=name):
            fates[name] += told
            if min(map(len, fates.values())) >= 100:
                done.set()
        egress.listener = listen
    filming = asyncio.create_task(film(cameras))
    await asyncio.wait_for(asyncio.gather(done.wait(), got), 15)
    filming.cancel()
    assert got.result() == "over the pacer"
    for name, egress in ends.items():
        received = [fate for fate in fates[name] if fate.received_at is not None]
        assert len(received) > 0.95 * len(fates[name])
        delays = [fate.received_at - fate.sent_at for fate in received]
        assert max(delays) - min(delays) < 1.0  # one clock here, from wherever it counts
        assert egress.pacer.sent[Kind.VOICE] > 20 and egress.pacer.sent[Kind.PICTURE] > 20
    transport = near.getSenders()[0].transport
    assert transport._ssl.get_selected_srtp_profile() == b"SRTP_AES128_CM_SHA1_80"
    await near.close()
    await far.close()
    print("well")

asyncio.run(main())
"""


async def test_a_pair_hears_what_arrived_and_when() -> None:
    """In a process of its own: what is installed stays installed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PAIR, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 40)
    assert out.decode().endswith("well\n"), out.decode()
