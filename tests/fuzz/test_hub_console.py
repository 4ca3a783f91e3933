"""The console's WebSocket at a running hub: whatever a signed-in page sends, it is answered, refused or shut out, and
the hub goes on for everybody else."""

from __future__ import annotations

import asyncio

import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import audit, console
from tests.adapters.hub.rig import Hub
from tests.fuzz.test_messages import OF_THE_CONSOLE, anything, as_json

FRAMES = 300
CONSULTS, CALLS = st.sampled_from(["ab" * 16, "cd" * 16]), st.sampled_from(["ab" * 8, "cd" * 8])


def genuine(consult: str, call: str) -> st.SearchStrategy[bytes]:
    """Messages about what is really there, so that they go deep."""
    swap = {"ab" * 16: consult, "ab" * 8: call}
    about = st.one_of(
        st.builds(console.OpenCase, consult=CONSULTS), st.builds(console.CloseCase, consult=CONSULTS),
        st.builds(console.LeaveCase, consult=CONSULTS), st.builds(console.RingKiosk, consult=CONSULTS),
        *(st.builds(kind, call=CALLS) for kind in (console.Claim, console.Talk, console.Release, console.Decline)),
        st.builds(console.HangUp, call=CALLS),
        st.builds(console.WantNewLeg, call=CALLS, leg=st.sampled_from([0, 1, -1, 2**31, 2**63, 2**70])),
        st.builds(console.SdpAnswer, call=CALLS, leg=st.sampled_from([0, 1, 2**63]), sdp=st.text(max_size=50)),
        st.builds(console.SetAvailable, available=st.booleans(), until=st.sampled_from(["", "12:30", "99:99", "\0"])),
    )  # fmt: skip

    def real(message: object) -> bytes:
        text = as_json(message).decode()
        for old, new in swap.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        return text.encode()

    return about.map(real)


def drawn(strategy: st.SearchStrategy[bytes], count: int) -> list[bytes]:
    """Drawn beforehand: Hypothesis does not wait for an event loop."""
    frames: list[bytes] = []

    @settings(max_examples=count, database=None, deadline=None)
    @given(strategy)
    def draw(frame: bytes) -> None:
        frames.append(frame)

    draw()
    return frames


async def test_whatever_a_page_sends(hub: Hub):
    long = settings.default is not None and settings.default.max_examples > 1000
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("ben") as ben, hub.doctor("anna") as anna:
        await kiosk.online()
        consult, call = await kiosk.press()
        await ben.rings(call)
        mixed = st.one_of(
            genuine(consult.hex(), call.hex()),
            genuine(consult.hex(), call.hex()),
            anything(OF_THE_CONSOLE.map(as_json)),
        )
        closed = 0
        for frame in drawn(mixed, 5000 if long else FRAMES):
            try:
                await anna.send_text(frame.decode(errors="replace") if closed % 2 else frame)  # text, and binary
            except websockets.ConnectionClosed:  # 20 that were none: shut out
                await anna.closed.wait()
                assert anna.close_code == 1008
                await anna.connect()
                closed += 1
            if len(frame) % 7 == 0:
                await asyncio.sleep(0)
        await anna.disconnect()
        await anna.connect()
        since = len(anna.got)
        await anna.send(console.OpenCase(consult=consult.hex()))
        await anna.until("case", since=since)
        # for others nothing has happened
        second, again = await kiosk.press()
        await ben.rings(again)
        await ben.send(console.Claim(call=again.hex()))
        await kiosk.phase(again, "claimed")
        assert second != consult
    log = hub.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log.replace("ERROR hub.database", "") or "request failed" not in log, log[-3000:]
    hub.do(audit.verify)
