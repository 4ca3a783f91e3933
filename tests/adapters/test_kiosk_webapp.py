"""The kiosk's web app over real sockets: who may ask, what garbage does, and what a slow page loses."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from hardware.api import LIGHT_PATTERNS, Light
from hardware.simulated import SimulatedBoard
from kiosk.screen import PictureKind
from tests.adapters.kiosk_port import Port, serving
from tests.adapters.kiosk_views import make_view


@pytest.fixture
async def port() -> Port:
    return Port(make_view("idle"), SimulatedBoard())


@pytest.fixture
async def url(port: Port) -> AsyncIterator[str]:
    async with serving(port) as address:
        yield address


def ws(url: str, path: str = "/ws") -> str:
    return url.replace("http:", "ws:") + path


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, headers={key.replace("_", "-"): value for key, value in headers.items()})


async def view_after(socket: websockets.ClientConnection, title: str) -> None:
    async with asyncio.timeout(10):
        async for frame in socket:
            if isinstance(frame, str) and json.loads(frame)["title"] == title:
                return
    raise AssertionError("the socket closed before the view came")


# --- who may ask


async def test_the_page_and_its_parts_are_served_and_keep_to_themselves(url: str) -> None:
    page = await get(url + "/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["referrer-policy"] == "no-referrer"
    for path in ("/static/app.js", "/static/pictures.svg", "/static/base.css", "/light-patterns", "/board"):
        assert (await get(url + path)).status_code == 200, path
    assert (await get(url + "/static/../webapp.py")).status_code == 404
    assert (await get(url + "/static/%2e%2e/webapp.py")).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:{port}", "192.168.1.7:{port}", "127.0.0.1:1", ""]
)
async def test_another_host_name_is_refused(url: str, host: str) -> None:
    number = url.rpartition(":")[2]
    for path in ("/", "/static/app.js", "/files/p1", "/board"):
        answer = await get(url + path, Host=host.format(port=number))
        assert answer.status_code == 403, path


async def test_localhost_is_this_machine_too(url: str) -> None:
    number = url.rpartition(":")[2]
    assert (await get(url + "/", Host=f"localhost:{number}")).status_code == 200
    assert (await get(url + "/", Host=f"localhost:{number}", Origin=f"http://localhost:{number}")).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
async def test_another_page_is_refused(url: str, port: Port, origin: str) -> None:
    foreign = origin.format(port=url.rpartition(":")[2])
    assert (await get(url + "/", Origin=foreign)).status_code == 403
    for path in ("/ws", "/board/ws"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(ws(url, path), origin=websockets.Origin(foreign), proxy=None)
        assert refused.value.response.status_code == 403
    assert port.pages == 0


async def test_a_picture_in_another_page_is_refused_yet_a_link_works(url: str) -> None:
    embedded = {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"}  # same-site: another port of loopback
    assert (await get(url + "/files/p1", **embedded)).status_code == 403
    assert (await get(url + "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")).status_code == 200


async def test_another_host_name_gets_no_socket(url: str) -> None:
    number = url.rpartition(":")[2]
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(f"ws://evil.example:{number}/ws", host="127.0.0.1", port=int(number), proxy=None)
    assert refused.value.response.status_code == 403


async def test_photos_come_through_the_port_and_are_not_kept(url: str, port: Port) -> None:
    port.files["p1"] = b"\xff\xd8 a photo"
    answer = await get(url + "/files/p1")
    assert answer.content == port.files["p1"]
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert (await get(url + "/files/p2")).status_code == 404


# --- views, actions, garbage


async def test_every_page_gets_the_view_and_may_act(url: str, port: Port) -> None:
    async with connect(ws(url), proxy=None) as one, connect(ws(url), proxy=None) as other:
        for socket in (one, other):
            await view_after(socket, port.view().title)
        port.show(make_view("ended"))
        for socket in (one, other):
            await view_after(socket, port.view().title)
        await one.send('{"do":"press"}')
        await other.send('{"do":"complaint","value":"fever"}')
        await port.acted("press")
        await port.acted("complaint", "fever")


GARBAGE = [
    "", "{", "[]", "null", '{"do":1}', '{"do":"fly"}', '{"do":"press","value":7}', "[" * 5000, "\x00",
    '{"do":"text","value":"' + "a" * 20_000 + '"}', b"\x00\x01\x02", b"",
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_closes_that_page_with_a_reason_and_no_other(url: str, port: Port, garbage: str | bytes) -> None:
    async with connect(ws(url), proxy=None) as good:
        await view_after(good, port.view().title)
        async with connect(ws(url), proxy=None) as bad:
            await bad.send(garbage)
            await asyncio.wait_for(bad.wait_closed(), 10)
            assert bad.close_code == 1007
            assert bad.close_reason
        await good.send('{"do":"press"}')
        await port.acted("press")
        assert [action.do for action in port.actions] == ["press"]


async def test_garbage_is_counted(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        async with connect(ws(url), proxy=None) as bad:
            await bad.send("{")
            await asyncio.wait_for(bad.wait_closed(), 10)
    told = [record.getMessage() for record in caplog.records if "garbage" in record.getMessage()]
    assert told == ["page sent garbage count=1", "page sent garbage count=2"]


async def test_a_frame_of_megabytes_is_refused_unread(url: str, port: Port) -> None:
    bad = await connect(ws(url), proxy=None, close_timeout=1)
    with suppress(websockets.ConnectionClosed):
        await bad.send("x" * 10_000_000)
    await bad.wait_closed()
    assert bad.close_code == 1009
    async with connect(ws(url), proxy=None) as good:
        await view_after(good, port.view().title)


# --- pictures


async def test_a_slow_page_loses_pictures_never_the_view(url: str, port: Port) -> None:
    picture = os.urandom(100_000)
    async with connect(ws(url), proxy=None, max_size=2**22, max_queue=1) as slow:
        await view_after(slow, port.view().title)
        port.send(PictureKind.FAR_VP8, True, 0, picture)
        for number in range(1, 400):  # 40 MB: more than sockets hold, and the page does not read
            port.send(PictureKind.FAR_VP8, False, number, picture)
            await asyncio.sleep(0)
        await port.acted("key_frame")
        last = make_view("ended")
        port.show(last)
        port.send(PictureKind.FAR_VP8, True, 1000, b"key")
        times = []
        seen_view = False
        async with asyncio.timeout(20):
            async for frame in slow:
                if isinstance(frame, str):
                    seen_view = json.loads(frame)["title"] == last.title
                else:
                    times.append(int.from_bytes(frame[2:6], "big"))
                    if times[-1] == 1000:
                        break
        assert seen_view
        assert len(times) < 300
        gap = next(index for index, time in enumerate(times) if time != index)
        assert times[gap:] == [1000]  # after a gap nothing but a key frame


async def test_only_the_newest_still_waits_for_a_slow_page(url: str, port: Port) -> None:
    async with connect(ws(url), proxy=None, max_size=2**22) as page:
        await view_after(page, port.view().title)
        for number in range(20):
            port.send(PictureKind.OWN_JPEG, True, number, b"jpeg")
        frame = await asyncio.wait_for(page.recv(), 10)
        assert isinstance(frame, bytes)
        assert (frame[0], frame[1], int.from_bytes(frame[2:6], "big"), frame[6:]) == (3, 1, 19, b"jpeg")


async def test_a_page_opened_in_a_call_asks_for_a_key_frame_once(url: str, port: Port) -> None:
    async with connect(ws(url), proxy=None) as page:
        await view_after(page, port.view().title)
        for number in range(5):
            port.send(PictureKind.FAR_VP8, False, number, b"delta")
        await port.acted("key_frame")
        port.send(PictureKind.FAR_VP8, True, 9, b"key")
        frame = await asyncio.wait_for(page.recv(), 10)
        assert frame == b"\x01\x01\x00\x00\x00\x09key"
        assert sum(action.do == "key_frame" for action in port.actions) == 1


async def test_a_page_opened_beside_a_still_asks_for_it(url: str, port: Port) -> None:
    async with connect(ws(url), proxy=None) as page:
        await page.send('{"do":"pictures_as","value":"vp8"}')
        await port.acted("key_frame")
        port.send(PictureKind.FAR_VP8, True, 9, b"still", still=True)
        while not isinstance(frame := await asyncio.wait_for(page.recv(), 10), bytes):
            pass  # the view
        assert frame == b"\x01\x03\x00\x00\x00\x09still"


async def test_pictures_come_in_the_form_that_every_open_page_can_show(url: str, port: Port) -> None:
    async with connect(ws(url), proxy=None) as one:
        await one.send('{"do":"pictures_as","value":"vp8"}')
        await port.acted("pictures_as", "vp8")
        async with connect(ws(url), proxy=None) as other:
            await other.send('{"do":"pictures_as","value":"jpeg"}')
            await port.acted("pictures_as", "jpeg")
        await port.acted("pictures_as", "vp8", count=2)


# --- the board's panel


async def test_the_panel_presses_and_sees_the_lamp(url: str, port: Port) -> None:
    board = port.board()
    assert board is not None
    raw: asyncio.Queue[bool] = asyncio.Queue()
    board.watch_button(lambda pressed, at: raw.put_nowait(pressed))
    assert await raw.get() is False
    async with connect(ws(url, "/board/ws"), proxy=None) as panel:
        assert json.loads(await panel.recv()) == {"light": "off", "pressed": False}
        await panel.send('{"do":"down"}')
        assert json.loads(await panel.recv()) == {"light": "off", "pressed": True}
        await asyncio.to_thread(board.show, Light.CALLING)  # the agent's own thread
        assert json.loads(await panel.recv()) == {"light": "calling", "pressed": True}
        await panel.send('{"do":"up"}')
        assert json.loads(await panel.recv()) == {"light": "calling", "pressed": False}
    assert [raw.get_nowait() for _ in range(2)] == [True, False]


async def test_a_panel_that_is_closed_lets_go_of_the_button(url: str, port: Port) -> None:
    board = port.board()
    assert board is not None
    released = asyncio.Event()
    async with connect(ws(url, "/board/ws"), proxy=None) as panel:
        await panel.send('{"do":"down"}')
        while not json.loads(await panel.recv())["pressed"]:
            pass
        board.watch_button(lambda pressed, at: None if pressed else released.set())
    await asyncio.wait_for(released.wait(), 10)


@pytest.mark.parametrize("garbage", ["", "{}", '{"do":"sideways"}', b"\x00"])
async def test_garbage_closes_the_panel_with_a_reason(url: str, garbage: str | bytes) -> None:
    async with connect(ws(url, "/board/ws"), proxy=None) as panel:
        await panel.send(garbage)
        await asyncio.wait_for(panel.wait_closed(), 10)
        assert panel.close_code == 1007


async def test_a_real_board_has_no_panel() -> None:
    async with serving(Port(make_view("idle"))) as url:
        assert (await get(url + "/board")).status_code == 404
        with pytest.raises(websockets.InvalidStatus):
            await connect(ws(url, "/board/ws"), proxy=None)


async def test_the_panel_is_given_the_lamp_s_own_patterns(url: str) -> None:
    patterns = (await get(url + "/light-patterns")).json()
    assert patterns == {light.value: [list(step) for step in steps] for light, steps in LIGHT_PATTERNS.items()}
