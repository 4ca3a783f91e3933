"""A doctor with Firefox ESR, over links that have to be shared out with care: what Firefox cannot be told costs some
quality, and never the call."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.e2e.far_village import open_far_village
from tests.e2e.firefox import FIREFOX, open_firefox
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.speech import heard
from tests.e2e.watching import WARM_UP_S
from tests.linklab.lab import unavailable_reason

REASON = unavailable_reason()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(FIREFOX is None, reason="Firefox is not installed (apt install firefox-esr)"),
    pytest.mark.skipif(REASON is not None, reason=f"no link lab here: {REASON}"),
]

WATCHED_S = 16.5  # two windows of speech
LEAST_SHARE = 0.9


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("kbps", "one_way_ms", "least_pesq", "pictures_per_s"),
    [(64, 200, 2.5, 1.0), pytest.param(256, 100, 3.0, 5.0, marks=pytest.mark.long)],
)
async def test_firefox_answers_and_holds(
    tmp_path: Path, voices, kbps: int, one_way_ms: int, least_pesq: float, pictures_per_s: float
) -> None:
    with open_far_village(kbps=kbps, one_way_ms=one_way_ms, outages=()) as village:
        kit = Kit(tmp_path, village)
        try:
            await kit.start()
            link = {"link": {"up_kbps": kbps, "down_kbps": kbps}}
            kiosk = await kit.add_kiosk("kiosk-one", voices.patient_wav, link)
            (tmp_path / "firefox").mkdir()
            async with open_firefox(tmp_path / "firefox", voices.doctor_wav) as doctor:
                await doctor.sit_down(kit.url, DOCTOR, kit.password)
                await kiosk.board.press()
                call = await doctor.take_call()
                await kiosk.screen.until(lambda view: view.screen == "live", "live")
                await asyncio.sleep(WARM_UP_S)
                assert await doctor.listens()
                before, since, played = await doctor.statistics(), time.time(), kiosk.heard_length()
                await asyncio.sleep(WATCHED_S)
                at_doctor, at_patient = await doctor.newest_sound(WATCHED_S), kiosk.heard(played)
                doctor_saw, after = await doctor.seen(since), await doctor.statistics()
                patient_saw = sum(at >= since for at in kiosk.screen.decoded_at) / (time.time() - since)
                offered, answered = await doctor.described()
                await doctor.hang_up()
                (await kit.until_over(call)).check("answered")
        finally:
            await kit.stop()
    doctor_heard, patient_heard = await asyncio.gather(
        asyncio.to_thread(heard, voices.patient, at_doctor), asyncio.to_thread(heard, voices.doctor, at_patient)
    )
    print(
        f"\ndoctor  {doctor_heard}\n        {doctor_saw}\npatient {patient_heard}\n        {patient_saw:.1f} pictures/s"
    )
    print(sent(before, after))
    print(described(offered), described(answered), sep="\n")
    for who, sound in (("doctor", doctor_heard), ("patient", patient_heard)):
        assert sound.share >= LEAST_SHARE, f"the {who} heard {sound}"
        assert sound.pesq >= least_pesq, f"the {who} heard {sound}"
    assert doctor_saw.per_second >= pictures_per_s
    assert patient_saw >= pictures_per_s


def sent(before: list[dict], after: list[dict]) -> str:
    """What Firefox sent meanwhile, without headers, to be held against what it was asked for."""
    lines = []
    for entry in (each for each in after if each["type"] == "outbound-rtp"):
        earlier = next((each for each in before if each["id"] == entry["id"]), {"bytesSent": 0, "packetsSent": 0})
        kbps = (entry["bytesSent"] - earlier["bytesSent"]) * 8 / 1000 / WATCHED_S
        packets = (entry["packetsSent"] - earlier["packetsSent"]) / WATCHED_S
        lines.append(f"Firefox sent {entry['kind']}: {kbps:.1f} kbit/s, {packets:.1f} packets/s")
    return "\n".join(lines)


def described(sdp: str) -> str:
    wanted = r"^(?:m=|a=(?:rtpmap|fmtp|ptime|maxptime|rtcp-fb|extmap))"
    return "; ".join(line for line in sdp.splitlines() if re.match(wanted, line))
