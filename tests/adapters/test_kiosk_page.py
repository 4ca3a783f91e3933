"""The kiosk's page in a real Chromium, against the real web app and a small agent of the test's own.

The screenshots go to tests/artifacts/kiosk/.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from playwright.async_api import Browser, Page, async_playwright

from hardware.api import LIGHT_PATTERNS, Light
from hardware.simulated import SimulatedBoard
from kiosk.screen import CallView, DraftView, PictureKind, View
from tests.adapters.kiosk_port import Port, serving
from tests.adapters.kiosk_views import all_views, make_view

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
ARTIFACTS = Path(__file__).parents[1] / "artifacts/kiosk"
JUDGE = (Path(__file__).parent / "judge_layout.js").read_text()
SCREEN_OF = {"pin": "pin", "worker": "worker", "worker-refused": "worker", "worker-empty": "worker"}


class Kiosk(NamedTuple):
    page: Page
    port: Port
    url: str

    async def show(self, view: View) -> None:
        """Until the page has drawn it."""
        before = await self.page.evaluate("Number(document.body.dataset.views ?? 0)")
        self.port.show(view)
        await self.page.wait_for_function("n => Number(document.body.dataset.views) > n", arg=before)

    async def screen(self, name: str) -> None:
        await self.page.wait_for_function("name => document.body.dataset.screen === name", arg=name)

    def acts(self) -> list[tuple[str, str]]:
        return [(a.do, a.value) for a in self.port.actions if a.do not in ("pictures_as", "key_frame")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def kiosk(browser: Browser) -> AsyncIterator[Kiosk]:
    port = Port(make_view("idle"), SimulatedBoard())
    photo = jpeg(colour=(40, 80, 160))
    port.files = {id: photo for id in ("p1", "p2", "p3")}
    async with serving(port) as url:
        page = await browser.new_page(viewport={"width": 1024, "height": 600})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        await page.goto(url)
        await page.wait_for_selector("[data-test=big]")
        yield Kiosk(page, port, url)
        await page.close()
        # A refused style or script is told on the console too; a lost socket is told by those who cut it.
        assert [line for line in wrong if "WebSocket connection" not in line] == []


def jpeg(colour: tuple[int, int, int], width: int = 320, height: int = 240) -> bytes:
    """`colour` is red, green, blue."""
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), colour[::-1], np.uint8))[1])


def vp8(colours: list[tuple[int, int, int]], width: int = 320, height: int = 240) -> list[tuple[bool, bytes]]:
    """One stream of whole pictures in these colours, as (key frame, data)."""
    encoder = av.CodecContext.create("libvpx", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 15)
    encoder.options = {"deadline": "realtime", "g": "9999", "lag-in-frames": "0", "crf": "4", "b": "2M"}
    frames = []
    for number, colour in enumerate(colours):
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), colour, np.uint8), format="rgb24")
        frame.pts = number
        frames += [(bool(packet.is_keyframe), bytes(packet)) for packet in encoder.encode(frame)]
    return frames + [(bool(packet.is_keyframe), bytes(packet)) for packet in encoder.encode(None)]


async def pixel(page: Page, canvas: str) -> NDArray[np.int_]:
    script = """canvas => [...document.querySelector(canvas).getContext("2d").getImageData(9, 9, 1, 1).data]"""
    return np.array((await page.evaluate(script, canvas))[:3])


async def until_colour(page: Page, canvas: str, colour: tuple[int, int, int]) -> None:
    await page.wait_for_function(
        """([canvas, wanted]) => {
          const found = document.querySelector(canvas)?.getContext("2d").getImageData(9, 9, 1, 1).data;
          return found && wanted.every((value, index) => Math.abs(found[index] - value) < 24);
        }""",
        arg=[canvas, list(colour)],
    )


# --- every screen, in every language, judged


@pytest.mark.parametrize(
    ("size", "code", "training"),
    [((1024, 600), "en", False), ((800, 480), "en", False), ((480, 800), "en", False)]
    + [(size, code, size[0] > size[1]) for code in ("fr", "sw") for size in ((1024, 600), (480, 800))],
)
async def test_every_screen_is_whole_and_legible(
    kiosk: Kiosk, size: tuple[int, int], code: str, training: bool
) -> None:
    """With the training kiosk's banner there is least room."""
    page = kiosk.page
    await page.emulate_media(reduced_motion="reduce")
    await page.set_viewport_size({"width": size[0], "height": size[1]})
    folder = ARTIFACTS / f"{size[0]}x{size[1]}-{code}"
    folder.mkdir(parents=True, exist_ok=True)
    complaints = {}
    for name, view in all_views(code).items():
        await kiosk.show(msgspec.structs.replace(view, simulated=training))
        assert await page.evaluate("document.body.dataset.screen") == SCREEN_OF.get(name, view.screen)
        if name == "worker":
            await page.click("[data-test=consult-c2]")
        if name == "worker-refused":
            await page.click("[data-test=consult-c1]")
        if name in ("draft-photo", "draft-photo-taken"):
            kiosk.port.send(PictureKind.OWN_JPEG, True, 0, jpeg((150, 120, 90)))
            await until_colour(page, "canvas.own", (150, 120, 90))
        if name in ("live", "live-stalled", "lost"):
            kiosk.port.send(PictureKind.FAR_JPEG, True, 0, jpeg((90, 120, 150), 640, 480))
            await until_colour(page, "#far", (90, 120, 150))
        if view.screen not in ("live", "emergency") and name not in SCREEN_OF:
            assert await page.inner_text("[data-test=title]") == view.title
        if found := await page.evaluate(JUDGE):
            complaints[name] = found
        if code == "en":
            await page.screenshot(path=folder / f"{name}.png")
    assert complaints == {}


async def test_the_judge_of_the_layout_complains(kiosk: Kiosk) -> None:
    await kiosk.page.evaluate(
        """() => {
          const ugly = new CSSStyleSheet();
          ugly.replaceSync(`
            h1 { transform: translateX(-100vw); }
            .key { width: 20px; min-width: 0; }
            .hint { font-size: 8px; color: #cdd; }
            .presence span { width: 10px; overflow: hidden; white-space: nowrap; }
            .languages .button { margin-left: -30px; }`);
          document.adoptedStyleSheets = [ugly];
        }"""
    )
    found = "\n".join(await kiosk.page.evaluate(JUDGE))
    for complaint in ("outside", "small target", "tiny text", "cut", "contrast", "overlap"):
        assert complaint in found


async def test_the_page_waits_quietly_without_an_agent_and_comes_back(browser: Browser) -> None:
    port = Port(make_view("idle"))
    async with serving(port) as url:
        page = await browser.new_page()
        await page.goto(url)
        await page.wait_for_selector("[data-test=big]")
    await page.wait_for_function("() => document.body.dataset.screen === 'starting'")
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTIFACTS / "starting.png")
    async with serving(Port(make_view("ended")), int(url.rpartition(":")[2])):
        await page.wait_for_function("() => document.body.dataset.screen === 'ended'")
    await page.close()


async def test_data_is_shown_as_text_never_as_markup(kiosk: Kiosk) -> None:
    nasty = '<img src="x" onerror="document.title=1"><b>bold</b>'
    await kiosk.show(msgspec.structs.replace(make_view("idle"), title=nasty, detail=nasty))
    assert await kiosk.page.inner_text("[data-test=title]") == nasty
    assert await kiosk.page.query_selector("#root img") is None


async def test_a_view_of_an_unknown_screen_waits(kiosk: Kiosk) -> None:
    view = msgspec.structs.replace(make_view("idle"), screen="from_a_newer_agent")  # type: ignore[arg-type]
    await kiosk.show(view)
    await kiosk.screen("starting")


# --- what a finger does

CLICKS = [
    ("ringing-hub", "cancel", "cancel", ""),
    ("claimed", "cancel", "cancel", ""),
    ("live", "end", "end", ""),
    ("lost", "end", "end", ""),
    ("turns", "end", "end", ""),
    ("incoming", "big", "press", ""),
    ("incoming", "decline", "cancel", ""),
    ("offer", "leave_message", "leave_message", ""),
    ("offer", "dismiss", "dismiss", ""),
    ("emergency", "big", "press", ""),
    ("emergency", "leave_message", "leave_message", ""),
    ("emergency", "dismiss", "dismiss", ""),
    ("saved", "dismiss", "dismiss", ""),
    ("ended", "dismiss", "dismiss", ""),
    ("idle-advice", "show_advice", "show_advice", "a1"),
    ("idle", "language-sw", "language", "sw"),
    ("idle", "worker", "worker", ""),
    ("advice", "play_advice", "play_advice", "a1"),
    ("advice-two", "show_advice-a2", "show_advice", "a2"),
    ("advice", "dismiss", "dismiss", ""),
    ("draft-voice", "record", "record", ""),
    ("draft-voice-recording", "record", "record", ""),
    ("draft-voice-recorded", "discard_voice", "discard_voice", ""),
    ("draft-voice-recorded", "next", "next", ""),
    ("draft-voice-recorded", "save_now", "save", ""),
    ("draft-photo", "photo", "photo", ""),
    ("draft-photo-taken", "discard_photo-p2", "discard_photo", "p2"),
    ("draft-photo", "back", "step", "voice"),
    ("draft-photo", "step-urgency", "step", "urgency"),
    ("draft-complaint", "complaint-breathing", "complaint", "breathing"),
    ("draft-urgency", "urgency-urgent", "urgency", "urgent"),
    ("draft-review", "review-photo", "step", "photo"),
    ("draft-review", "save", "next", ""),
    ("pin", "lock", "lock", ""),
]


async def test_every_button_says_what_it_does(kiosk: Kiosk) -> None:
    views = all_views("en")
    for name, button, do, value in CLICKS:
        kiosk.port.actions.clear()
        # Anew each time: the page takes a second tap on the same thing for a trembling hand.
        await kiosk.page.reload()
        await kiosk.page.wait_for_function("() => Number(document.body.dataset.views) > 0")
        await kiosk.show(views[name])
        await kiosk.page.click(f"[data-test={button}]")
        await kiosk.port.acted(do, value)
        assert kiosk.acts() == [(do, value)], name


async def test_a_trembling_hand_starts_one_recording(kiosk: Kiosk) -> None:
    await kiosk.show(all_views("en")["draft-voice"])
    await kiosk.page.dblclick("[data-test=record]", delay=20)
    await kiosk.page.click("[data-test=next]")
    await kiosk.port.acted("next")
    assert kiosk.acts() == [("record", ""), ("next", "")]


async def test_a_button_that_waits_cannot_be_pressed(kiosk: Kiosk) -> None:
    await kiosk.show(make_view("draft", title="draft_photo", draft=DraftView(step="photo", busy=True)))
    assert await kiosk.page.is_disabled("[data-test=photo]")
    await kiosk.show(all_views("en")["draft-voice-recording"])
    assert await kiosk.page.is_disabled("[data-test=next]")


async def test_the_level_moves_without_losing_the_finger(kiosk: Kiosk) -> None:
    """Views come ten times a second while recording: a press begun before one and ended after it counts."""
    await kiosk.show(make_view("draft", title="draft_voice", draft=DraftView(step="voice", recording=True, level=0.1)))
    await kiosk.page.hover("[data-test=record]")
    await kiosk.page.mouse.down()
    for level in (0.3, 0.6, 0.9):
        draft = DraftView(step="voice", recording=True, level=level, elapsed_ms=int(level * 1000))
        await kiosk.show(make_view("draft", title="draft_voice", draft=draft))
    await kiosk.page.mouse.up()
    await kiosk.port.acted("record")
    level_script = "getComputedStyle(document.querySelector('.halo')).getPropertyValue('--level')"
    assert await kiosk.page.evaluate(level_script) == "0.90"


# --- the big button


async def test_a_press_is_told_when_the_finger_lands(kiosk: Kiosk) -> None:
    await kiosk.page.hover("[data-test=big]")
    await kiosk.page.mouse.down()
    await kiosk.port.acted("press")
    await kiosk.page.mouse.up()
    await kiosk.page.click("[data-test=language-fr]")
    await kiosk.port.acted("language")
    assert kiosk.acts() == [("press", ""), ("language", "fr")]


async def test_held_two_seconds_is_an_emergency_even_when_the_screen_changes_under_it(kiosk: Kiosk) -> None:
    page = kiosk.page
    started = asyncio.get_running_loop().time()
    await page.hover("[data-test=big]")
    await page.mouse.down()
    await kiosk.port.acted("press")
    await kiosk.show(make_view("draft", title="draft_voice", draft=DraftView(step="voice")))  # as offline
    await page.wait_for_selector("#hold.filling")
    await page.wait_for_function("() => getComputedStyle(document.getElementById('hold')).opacity === '1'")
    await page.screenshot(path=ARTIFACTS / "held.png")
    await kiosk.port.acted("emergency")
    assert 1.9 < asyncio.get_running_loop().time() - started < 4
    await page.mouse.up()
    assert kiosk.acts() == [("press", ""), ("emergency", "")]
    await page.wait_for_function("() => !document.querySelector('#hold.filling')")


async def test_in_turns_it_is_held_to_speak(kiosk: Kiosk) -> None:
    """By a finger or by the key, however long: no emergency, and no ring that tells of one."""
    page = kiosk.page
    await kiosk.show(all_views("en")["turns"])
    await page.hover("[data-test=big]")
    await page.mouse.down()
    await kiosk.port.acted("press")
    await kiosk.show(all_views("en")["turns-speaking"])
    await page.wait_for_timeout(2300)
    assert await page.query_selector("#hold.filling") is None
    await page.mouse.up()
    await kiosk.port.acted("release")
    await page.keyboard.down("Space")
    await page.keyboard.up("Space")
    await kiosk.port.acted("release", count=2)
    assert kiosk.acts() == [("press", ""), ("release", "")] * 2


@pytest.mark.parametrize("key", ["Enter", "Space"])
async def test_keys_are_the_big_button_too(kiosk: Kiosk, key: str) -> None:
    page = kiosk.page
    await page.click("[data-test=language-fr]")  # a touched button does not keep the key for itself
    await page.keyboard.down(key)
    await page.keyboard.down(key)  # the keyboard repeats while it is down
    await kiosk.port.acted("emergency")
    await page.keyboard.up(key)
    assert kiosk.acts() == [("language", "fr"), ("press", ""), ("emergency", "")]


async def test_a_button_reached_with_tab_keeps_its_key(kiosk: Kiosk) -> None:
    await kiosk.show(all_views("en")["offer"])
    await kiosk.page.evaluate("document.querySelector('[data-test=language-sw]').focus()")
    await kiosk.page.keyboard.press("Tab")
    await kiosk.page.keyboard.press("Enter")
    await kiosk.port.acted("leave_message")
    assert kiosk.acts() == [("leave_message", "")]


async def test_touch_presses(browser: Browser, kiosk: Kiosk) -> None:
    context = await browser.new_context(has_touch=True, viewport={"width": 800, "height": 480})
    page = await context.new_page()
    await page.goto(kiosk.url)
    await page.tap("[data-test=big]")
    await kiosk.port.acted("press")
    await context.close()
    assert kiosk.acts() == [("press", "")]


# --- the worker's face


async def test_the_pin_is_typed_by_finger_or_keyboard(kiosk: Kiosk) -> None:
    page = kiosk.page
    view = all_views("en")["pin"]
    await kiosk.show(view)
    for key in ("4", "7", "erase", "2"):
        await page.click(f"[data-test=pin-{key}]")
    assert len(await page.query_selector_all(".digits .typed")) == 2
    await page.keyboard.press("9")
    await page.click("[data-test=pin-ok]")
    await kiosk.port.acted("pin", "429")
    await kiosk.show(msgspec.structs.replace(view, pin_error="Wrong PIN. 4 tries left."))
    assert await page.inner_text("[data-test=pin_error]") == "Wrong PIN. 4 tries left."
    assert await page.query_selector(".digits .typed") is None
    for key in "1234":
        await page.keyboard.press(key)
    await page.keyboard.press("Enter")
    await kiosk.port.acted("pin", "1234")
    assert kiosk.acts() == [("pin", "429"), ("pin", "1234")]


async def test_the_worker_starts_a_case_and_locks(kiosk: Kiosk) -> None:
    await kiosk.show(all_views("en")["worker"])
    await kiosk.page.click("[data-test=new_case]")
    await kiosk.port.acted("new_case")
    await kiosk.page.click("[data-test=lock]")
    await kiosk.port.acted("lock")
    assert [do for do, _ in kiosk.acts() if do != "worker"] == ["new_case", "lock"]


async def test_the_worker_reads_a_consult_and_it_goes_with_the_lock(kiosk: Kiosk) -> None:
    page, views = kiosk.page, all_views("en")
    await kiosk.show(views["worker"])
    await page.click("[data-test=consult-c2]")
    await kiosk.port.acted("worker")  # a hand is on it: not yet time to lock
    assert "zinc tablet" in await page.inner_text("[data-test=details]")
    await page.click("[data-test=consult-c1]")
    await page.click("[data-test=send_again]")
    await kiosk.port.acted("send_again")
    assert (await page.inner_text("[data-test=details] [data-test=unsent]")).startswith("Not sent since")
    assert await page.get_attribute("[data-test=all_sent]", "data-unsent") == "1"
    assert await page.get_attribute("[data-test=details] [data-test=delivery]", "data-step") == "saved"
    await kiosk.show(views["idle"])
    assert "17-204" not in await page.content()
    await kiosk.show(views["worker"])
    assert await page.query_selector("[data-test=delivery]") is None


async def test_fields_are_sent_while_they_are_written_and_not_overwritten(kiosk: Kiosk) -> None:
    page, view = kiosk.page, all_views("en")["draft-review-worker"]
    assert view.draft is not None
    await kiosk.show(view)
    await page.fill("[data-test=patient]", "17-3")
    await page.focus("[data-test=patient]")
    await page.keyboard.type("00")
    await kiosk.port.acted("patient", "17-300")  # by itself, a moment after the last key
    await page.keyboard.type("1")
    older = msgspec.structs.replace(view, draft=msgspec.structs.replace(view.draft, patient="17-300"))
    await kiosk.show(older)
    assert await page.input_value("[data-test=patient]") == "17-3001"
    await page.fill("[data-test=text]", "Fever since Monday. 38.9 °C")
    await page.click("[data-test=save]")  # at once: what was written goes first
    await kiosk.port.acted("next")
    assert kiosk.acts()[-3:] == [("patient", "17-3001"), ("text", "Fever since Monday. 38.9 °C"), ("next", "")]
    newer = msgspec.structs.replace(view, draft=msgspec.structs.replace(view.draft, patient="", text=""))
    await page.evaluate("document.activeElement.blur()")
    await kiosk.show(newer)
    assert await page.input_value("[data-test=text]") == ""


async def test_typing_a_note_presses_nothing(kiosk: Kiosk) -> None:
    await kiosk.show(all_views("en")["draft-review-worker"])
    await kiosk.page.focus("[data-test=text]")
    await kiosk.page.keyboard.type(" two words")
    await kiosk.page.keyboard.press("Enter")
    await kiosk.port.acted("text")
    assert not [act for act in kiosk.acts() if act[0] in ("press", "emergency")]


# --- pictures

LIVE = make_view("live", call=CallView(heard_by="person", doctor="Dr. A. Example", media="flowing"))
RED, GREEN, BLUE = (200, 30, 30), (30, 160, 40), (30, 40, 200)


async def test_vp8_is_decoded_and_shown(kiosk: Kiosk) -> None:
    await kiosk.port.acted("pictures_as", "vp8")
    await kiosk.show(LIVE)
    for number, (key, data) in enumerate(vp8([RED, RED, GREEN, GREEN, BLUE])):
        kiosk.port.send(PictureKind.FAR_VP8, key, number * 67, data)
    await until_colour(kiosk.page, "#far", BLUE)
    assert await kiosk.page.evaluate("[far.width, far.height]") == [320, 240]
    assert not await kiosk.page.is_visible(".unseen")
    await kiosk.show(make_view("ended"))  # nothing of a call stays
    assert list(await pixel(kiosk.page, "#far")) == [0, 0, 0]
    assert await kiosk.page.evaluate("document.body.dataset.far") is None


async def test_a_face_that_has_stopped_goes_and_a_still_stays_until_the_next(kiosk: Kiosk) -> None:
    await kiosk.page.clock.install()
    await kiosk.show(LIVE)
    _, data = vp8([RED])[0]
    for still, stays in ((True, True), (False, False)):
        kiosk.port.send(PictureKind.FAR_VP8, True, 0, data, still)
        await kiosk.page.wait_for_selector("body[data-far=shown]")
        await kiosk.page.clock.fast_forward(100_000)
        assert await kiosk.page.evaluate("document.body.dataset.far === 'shown'") == stays
        await kiosk.page.clock.fast_forward(60_000)
        assert await kiosk.page.evaluate("document.body.dataset.far") is None


async def test_a_broken_frame_asks_for_a_key_frame_and_the_picture_comes_back(kiosk: Kiosk) -> None:
    await kiosk.show(LIVE)
    frames = vp8([RED, RED])
    kiosk.port.send(PictureKind.FAR_VP8, *([frames[0][0], 0, frames[0][1]]))
    await until_colour(kiosk.page, "#far", RED)
    kiosk.port.send(PictureKind.FAR_VP8, True, 67, b"\x10\x00\x00not vp8 at all")
    await kiosk.port.acted("key_frame", count=2)  # the first was the page's, when it was opened
    again = vp8([GREEN])
    kiosk.port.send(PictureKind.FAR_VP8, *([again[0][0], 134, again[0][1]]))
    await until_colour(kiosk.page, "#far", GREEN)


async def test_a_key_frame_of_another_size_changes_the_canvas(kiosk: Kiosk) -> None:
    await kiosk.show(LIVE)
    for number, size in enumerate(((320, 240), (640, 480), (160, 120))):
        key, data = vp8([BLUE], *size)[0]
        kiosk.port.send(PictureKind.FAR_VP8, key, number, data)
        await kiosk.page.wait_for_function("([w, h]) => far.width === w && far.height === h", arg=list(size))


async def test_a_browser_without_webcodecs_is_given_stills(browser: Browser, kiosk: Kiosk) -> None:
    page = await browser.new_page()
    await page.add_init_script("delete window.VideoDecoder")
    await page.goto(kiosk.url)
    await kiosk.port.acted("pictures_as", "jpeg")
    kiosk.port.show(LIVE)
    await page.wait_for_function("() => document.body.dataset.screen === 'live'")
    kiosk.port.send(PictureKind.FAR_JPEG, True, 0, b"\xff\xd8 damaged")
    kiosk.port.send(PictureKind.FAR_JPEG, True, 1, jpeg(GREEN))
    await until_colour(page, "#far", GREEN)
    await page.close()


async def test_own_picture_and_photos_are_seen_before_they_are_sent(kiosk: Kiosk) -> None:
    views = all_views("en")
    await kiosk.show(views["draft-photo"])
    kiosk.port.send(PictureKind.OWN_JPEG, True, 0, jpeg(BLUE))
    await until_colour(kiosk.page, "canvas.own", BLUE)
    await kiosk.show(views["draft-photo-taken"])
    assert (await pixel(kiosk.page, "canvas.own"))[2] > 150  # the preview outlives a new view
    await kiosk.page.wait_for_function(
        "() => [...document.images].length === 3 && [...document.images].every((i) => i.naturalWidth)"
    )


# --- the board's panel


async def test_the_panel_s_button_and_lamp_are_the_board_s(browser: Browser, kiosk: Kiosk) -> None:
    board = kiosk.port.board()
    assert board is not None
    changes: asyncio.Queue[bool] = asyncio.Queue()
    board.watch_button(lambda pressed, at: changes.put_nowait(pressed))
    assert await changes.get() is False
    page = await browser.new_page(viewport={"width": 1000, "height": 720})
    await page.goto(kiosk.url + "/board")
    await page.wait_for_function("() => document.body.dataset.connected !== undefined")
    await page.hover("[data-test=button]")
    await page.mouse.down()
    assert await asyncio.wait_for(changes.get(), 10) is True
    await page.wait_for_selector("[data-test=button][aria-pressed=true]")
    await page.mouse.up()
    assert await asyncio.wait_for(changes.get(), 10) is False
    await page.keyboard.down("Enter")
    assert await asyncio.wait_for(changes.get(), 10) is True
    await page.keyboard.up("Enter")
    assert await asyncio.wait_for(changes.get(), 10) is False
    lamp = "getComputedStyle(document.body).getPropertyValue('--lamp')"
    for light in Light:
        board.show(light)
        await page.wait_for_function("light => document.body.dataset.light === light", arg=light.value)
        if light is Light.LIVE:
            assert await page.evaluate(lamp) == "rgb(0 255 0)"
            await page.screenshot(path=ARTIFACTS / "board.png")
    board.show(Light.EMERGENCY)
    step = LIGHT_PATTERNS[Light.EMERGENCY][0].seconds
    blinks = """([dark, wanted]) => new Promise((done) => {
      const times = [];
      let before = null;
      const look = () => {
        const now = getComputedStyle(document.body).getPropertyValue('--lamp');
        if (before !== null && now !== before) times.push(performance.now());
        before = now;
        if (times.length === wanted) done(times.slice(1).map((time, index) => time - times[index]));
        else requestAnimationFrame(look);
      };
      look();
    })"""
    gaps = await page.evaluate(blinks, ["", 9])
    assert np.median(gaps) == pytest.approx(step * 1000, abs=60)
    await page.close()
