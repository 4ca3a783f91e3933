"""A live call judged at both ends over some time: the bar that every call in the flows has to pass."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from tests.e2e.doctor import Doctor, seen_at_kiosk
from tests.e2e.kiosk import Kiosk
from tests.e2e.pictures import Seen
from tests.e2e.speech import Heard, Samples, heard, write_wav

WARM_UP_S = 3.0  # prompts end, jitter buffers and encoders find their pace
MIN_PESQ = 3.5
MIN_SHARE = 0.8
MIN_PICTURES_PER_S = 10.0
MIN_IN_ORDER = 0.99


class Watched(NamedTuple):
    doctor_heard: Heard
    patient_heard: Heard
    doctor_saw: Seen
    patient_saw: Seen

    def check(self, min_pesq: float = MIN_PESQ) -> None:
        print(f"\ndoctor  {self.doctor_heard}\n        {self.doctor_saw}")
        print(f"patient {self.patient_heard}\n        {self.patient_saw}")
        for who, sound in (("doctor", self.doctor_heard), ("patient", self.patient_heard)):
            assert sound.pesq >= min_pesq, f"the {who} heard {sound}"
            assert sound.share >= MIN_SHARE, f"the {who} heard {sound}"
        for who, picture in (("doctor", self.doctor_saw), ("patient", self.patient_saw)):
            assert picture.per_second >= MIN_PICTURES_PER_S, f"the {who} saw {picture}"
            assert picture.in_order_share >= MIN_IN_ORDER, f"the {who} saw {picture}"


async def watch(kiosk: Kiosk, doctor: Doctor, patient_says: Samples, doctor_says: Samples, seconds: float) -> Watched:
    """Records `seconds` of a call that is live already; at least a window of speech, see `speech.heard`."""
    await asyncio.sleep(WARM_UP_S)
    assert await doctor.listens(), "the doctor's page keeps the far sound off"
    since, played = time.time(), kiosk.heard_length()
    await asyncio.sleep(seconds)
    at_doctor = await doctor.newest_sound(seconds)
    at_patient = kiosk.heard(played)
    doctor_saw = await doctor.seen(since)
    patient_saw = seen_at_kiosk(kiosk.screen.far_pictures, since)
    # Kept beside the logs, for whoever asks why a test failed.
    write_wav(kiosk.folder / "heard-by-doctor.wav", at_doctor)
    write_wav(kiosk.folder / "heard-by-patient.wav", at_patient)
    doctor_heard, patient_heard = await asyncio.gather(
        asyncio.to_thread(heard, patient_says, at_doctor), asyncio.to_thread(heard, doctor_says, at_patient)
    )
    return Watched(doctor_heard, patient_heard, doctor_saw, patient_saw)
