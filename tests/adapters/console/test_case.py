"""Reading and answering cases."""

from __future__ import annotations

import asyncio

import cv2
import msgspec
import numpy as np
import pytest
from playwright.async_api import expect

from hub import console
from tests.adapters.console.desk import CONSULT, OTHER, Desk, case, ring_card, until_true
from tests.adapters.console.standin import now_ms

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"


def jpeg(hue: int) -> bytes:
    """A round patch on skin-like ground, 960×720."""
    y, x = np.mgrid[0:720, 0:960]
    patch = np.clip(200 - np.hypot(x - 480, y - 330) / 2, 0, 110)
    picture = np.stack([150 - patch / 2 - hue, 170 - patch - hue, 215 - patch / 3], axis=-1)
    return cv2.imencode(".jpg", picture.astype(np.uint8))[1].tobytes()


def photo(digest: str, complete: bool = True) -> console.FileCard:
    return console.FileCard(
        digest=digest, role="photo", mime="image/jpeg", size=84_000, received=84_000 if complete else 30_000,
        complete=complete, duration_ms=0, captured_at=now_ms() - 500_000,
    )  # fmt: skip


async def test_reads_a_case(desk: Desk) -> None:
    await desk.sign_in()
    standin = desk.standin
    standin.files = {"d" * 64: (jpeg(0), "image/jpeg"), "e" * 64: (jpeg(40), "image/jpeg")}
    voice = console.FileCard(
        digest="f" * 64, role="voice", mime="audio/ogg", size=21_000, received=8000, complete=False,
        duration_ms=14_000, captured_at=now_ms() - 480_000,
    )  # fmt: skip
    missed = console.CallCard(
        call="9" * 16, requested_at=now_ms() - 600_000, by_doctor=False, doctor="", emergency=False,
        ended_at=now_ms() - 540_000, outcome="unanswered",
    )  # fmt: skip
    advice = console.AdviceCard(
        advice="8" * 16, given_by="Dr Bello", given_at=now_ms() - 400_000,
        text="Give the fever syrup twice a day, and plenty to drink.", delivered_at=now_ms() - 390_000,
    )  # fmt: skip
    shown = case(
        files=(photo("d" * 64), photo("e" * 64), photo("7" * 64, complete=False), voice), calls=(missed,),
        advice=(advice,), photos=3, voice_ms=14_000,
    )  # fmt: skip
    await standin.show(shown)
    await desk.part("case-row").click()
    await expect(desk.part("case-text")).to_contain_text("Fever for three days")
    await expect(desk.part("case")).to_contain_text("Fever")
    await expect(desk.part("call-line")).to_contain_text("nobody answered")
    await expect(desk.part("voice").locator("progress")).to_have_js_property("value", 8000)
    await expect(desk.part("advice")).to_have_attribute("data-reached", "delivered")
    await desk.picture("case")

    await desk.part("photo").first.locator("button").click()
    await expect(desk.part("photo-large")).to_be_visible()
    await desk.page.keyboard.press("ArrowRight")
    await expect(desk.part("photo-large").locator("img")).to_have_attribute("src", f"/api/files/{'e' * 64}")
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 960")
    await desk.picture("photo")
    await desk.page.keyboard.press("Escape")
    await expect(desk.part("photo-large")).to_have_count(0)

    heard = msgspec.structs.replace(advice, heard_at=now_ms())
    await standin.show(msgspec.structs.replace(shown, advice=(heard,)))
    await expect(desk.part("advice")).to_have_attribute("data-reached", "heard")
    await desk.part("close-case").click()
    await standin.wait_for(console.CloseCase)
    await desk.part("tab-closed").click()
    await expect(desk.part("case-row")).to_have_count(1)
    await expect(desk.part("case-row")).to_have_attribute("data-state", "closed")


def rendition(name: str, digest: str, size: int, received: int | None = None) -> console.Rendition:
    received = size if received is None else received
    return console.Rendition(digest=digest, name=name, size=size, received=received, complete=received == size)


async def test_photos_get_better_without_jumping(desk: Desk) -> None:
    await desk.sign_in()
    standin = desk.standin
    large = cv2.imdecode(np.frombuffer(jpeg(20), np.uint8), 1)
    small = {side: cv2.imencode(".webp", cv2.resize(large, (side, side * 3 // 4)))[1].tobytes() for side in (160, 640)}
    standin.files = {
        "1" * 64: (small[160], "image/webp"), "2" * 64: (small[640], "image/webp"), "3" * 64: (jpeg(20), "image/jpeg"),
        "4" * 64: (cv2.imencode(".jpg", cv2.resize(large, (1920, 1440)))[1].tobytes(), "image/jpeg"),
    }  # fmt: skip
    first = photo("3" * 64, complete=False)
    other = msgspec.structs.replace(
        photo("7" * 64, complete=False), renditions=(rendition("thumbnail", "1" * 64, 2500),)
    )
    broken = msgspec.structs.replace(photo("8" * 64), damage="no_picture")
    coming = msgspec.structs.replace(photo("9" * 64, complete=False), size=0, received=0)
    boxes = []

    async def show(*renditions: console.Rendition, **changes: object) -> None:
        card = msgspec.structs.replace(first, renditions=renditions, original_bytes=420_000, **changes)
        await standin.show(case(files=(card, other, broken, coming), photos=4, complete=False, state="receiving"))

    async def shows(what: str) -> None:
        await expect(desk.part("photo").first).to_have_attribute("data-shows", what)
        await until_true(desk.page, "document.querySelector('[data-test=photo] img').complete")
        boxes.append(await desk.part("photo").first.bounding_box())

    thumbnail, preview = rendition("thumbnail", "1" * 64, 2500), rendition("preview", "2" * 64, 22_000)
    await show(thumbnail, rendition("preview", "2" * 64, 22_000, 8_000))
    await desk.part("case-row").click()
    await shows("thumbnail")
    await expect(desk.part("damaged")).to_contain_text("no picture")
    await desk.picture("photos-thumbnail")
    await desk.part("photo").first.locator("button").click()
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 160")
    frame = await desk.part("photo-large").locator("img").bounding_box()
    await desk.picture("photo-large-thumbnail")
    await show(thumbnail, preview)
    await shows("preview")
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 640")
    await desk.picture("photo-large-preview")
    await show(thumbnail, preview, complete=True, received=84_000)
    await shows("photo")
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 960")
    await expect(desk.part("ask-original")).to_have_text("Ask for the original (420 kB)")
    await desk.picture("photo-large-whole")
    await desk.part("ask-original").click()
    asked = await standin.wait_for(console.AskOriginal)
    assert (asked.consult, asked.digest) == (CONSULT, "3" * 64)
    await show(thumbnail, preview, complete=True, received=84_000, original_asked_at=now_ms())
    await expect(desk.part("original-asked")).to_be_visible()
    await show(thumbnail, preview, rendition("original", "4" * 64, 420_000), complete=True, received=84_000)
    await shows("original")
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 1920")
    assert await desk.part("photo-large").locator("img").bounding_box() == frame
    assert all(box == boxes[0] for box in boxes)


async def test_what_people_typed_is_only_ever_text(desk: Desk) -> None:
    await desk.sign_in()
    hostile = case(patient=SCRIPT, text=SCRIPT, complaints=(SCRIPT, "__proto__"), site=SCRIPT, entered_by=SCRIPT)
    await desk.standin.show(hostile)
    await desk.standin.ring(ring_card(site=SCRIPT, warnings=(SCRIPT,), language=SCRIPT))
    await desk.part("case-row").click()
    await expect(desk.part("case-text")).to_have_text(SCRIPT)
    await expect(desk.part("ring-card")).to_contain_text(SCRIPT)
    await expect(desk.page.locator("img[src=x]")).to_have_count(0)


async def test_an_offline_kiosk_cannot_be_rung(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case(kiosk_online=False))
    await desk.part("case-row").click()
    await expect(desk.part("ring-kiosk")).to_be_disabled()
    await expect(desk.part("case")).to_contain_text("The kiosk is offline. Advice goes out when it is back.")


async def test_advice_is_written_and_survives_reload_and_failure(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("advice-text").fill("Drink a lot.\nCome back on Friday.")
    await desk.page.reload()
    await desk.part("case-row").click()
    await expect(desk.part("advice-text")).to_have_value("Drink a lot.\nCome back on Friday.")

    desk.standin.refuse_advice = "The hub's disk is full."
    await desk.part("advice-text").press("Control+Enter")
    await expect(desk.part("advice-error")).to_contain_text("Not sent, and kept here. The hub's disk is full.")
    await expect(desk.part("advice-text")).to_have_value("Drink a lot.\nCome back on Friday.")

    desk.standin.refuse_advice = ""
    await desk.part("advice-send").click()
    await expect(desk.part("advice")).to_contain_text("Come back on Friday.")
    await expect(desk.part("advice-text")).to_have_value("")
    assert desk.standin.advice_posts == [(CONSULT, "Drink a lot.\nCome back on Friday.", b"")]
    await desk.page.reload()
    await desk.part("case-row").click()
    await expect(desk.part("advice-text")).to_have_value("")


async def test_advice_whose_answer_was_lost_is_not_given_twice(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    desk.standin.lose_answer = True
    await desk.part("advice-text").fill("Drink a lot.")
    await desk.part("advice-send").click()
    await expect(desk.part("advice")).to_contain_text("Drink a lot.")
    await expect(desk.part("advice-text")).to_have_value("")


async def test_typing_is_not_disturbed_by_what_arrives(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("advice-text").press_sequentially("First ")
    await desk.standin.show(case(files=(photo("7" * 64, complete=False),)))
    await expect(desk.part("photo")).to_have_count(1)
    await expect(desk.part("advice-text")).to_be_focused()
    await desk.page.keyboard.type("second")
    await expect(desk.part("advice-text")).to_have_value("First second")


async def test_a_voice_reply_is_heard_before_it_is_sent(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("record-reply").click()
    await expect(desk.part("record-stop")).to_contain_text("0:01")
    await desk.part("record-stop").click()
    await expect(desk.part("reply-preview").locator("audio")).to_be_visible()
    await desk.part("reply-discard").click()
    await expect(desk.part("reply-preview")).to_have_count(0)
    await expect(desk.part("advice-send")).to_be_disabled()

    await desk.part("record-reply").click()
    await expect(desk.part("record-stop")).to_contain_text("0:02")
    await desk.part("record-stop").click()
    await desk.picture("voice-reply")
    preview = desk.part("reply-preview").locator("audio")
    await preview.evaluate("audio => audio.play()")
    await until_true(desk.page, "document.querySelector('[data-test=reply-preview] audio').currentTime > 0.3")
    await desk.part("advice-send").click()
    await expect(desk.part("advice").locator("audio")).to_have_attribute("src", f"/api/files/{'1'.zfill(64)}")
    [(_, text, voice)] = desk.standin.advice_posts
    assert text == ""
    assert voice.startswith(b"\x1aE\xdf\xa3")  # a WebM file
    assert b"OpusHead" in voice


async def test_another_patients_case_beside_a_call_is_marked(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.cases = {CONSULT: case(), OTHER: case(OTHER, patient="Patient 8")}
    await desk.standin.send_inbox()
    await desk.live_call()
    await expect(desk.part("other-patient")).to_have_count(0)
    await desk.page.locator(f"[data-test=case-row][data-consult='{OTHER}']").click()
    await expect(desk.part("other-patient")).to_contain_text("not the case of the patient on the line")
    await expect(desk.part("record-reply")).to_be_disabled()
    await asyncio.wait_for(desk.part("other-patient").locator("button").click(), 5)
    await expect(desk.part("case")).to_have_attribute("data-consult", CONSULT)
