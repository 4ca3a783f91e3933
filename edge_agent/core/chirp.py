"""Plays a chirp and finds it again: level, delay and echo from one recording, by a matched filter. Pure.

A linear sweep of half a second is correlated with itself in what the microphone heard (Turin, An introduction to
matched filters, IRE Trans. 1960): all of its energy falls into one peak as wide as one over its bandwidth, so that it
is found below the noise, and what comes after the peak is the room. All sound is mono int16 at 48 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.findings import Finding, Group, failed, passed, untested, warned
from hardware.api import SAMPLE_RATE_HZ

CHIRP_S = 0.5
_FROM_HZ, _TO_HZ = 400.0, 5000.0  # what small loudspeakers and cheap microphones both can
_EDGE_S = 0.02
_LOUDNESS = 0.35  # of full scale

_SILENT_DBFS = -85.0  # an open microphone in the quietest room is above; a muted one gives zeros
_CLIPPED = 0.002  # of the samples
_FOUND = 7.0  # the peak over the rest's mean size: noise alone stays under 5.5 in half a million samples
_FAINT_DBFS = -55.0
_LATE_MS = 600.0
_DIRECT_S = 0.02  # around the peak: the sound itself and what reflects at once
_CANCELLED_S = 0.24  # the echo canceller's room, see `edge_agent.core.echo`
_LONG_ROOM_DB = -15.0


def chirp() -> NDArray[np.int16]:
    count = round(CHIRP_S * SAMPLE_RATE_HZ)
    time = np.arange(count) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * (_FROM_HZ * time + (_TO_HZ - _FROM_HZ) / (2 * CHIRP_S) * time**2)
    edge = round(_EDGE_S * SAMPLE_RATE_HZ)
    window = np.ones(count)
    window[:edge] = 0.5 - 0.5 * np.cos(np.pi * np.arange(edge) / edge)
    window[-edge:] = window[:edge][::-1]
    return np.asarray(np.sin(phase) * window * _LOUDNESS * 32767, np.int16)


@dataclass(frozen=True, slots=True)
class Heard:
    floor_dbfs: float  # before the chirp
    clipped: float  # part of the samples
    over_noise: float  # how far the peak stands out
    level_dbfs: float  # of the chirp as it was heard
    delay_ms: float  # after `played_at`
    room_db: float  # what comes after the canceller's room, against the sound itself


def listen(heard: NDArray[np.int16], played_at: int) -> Heard:
    """`played_at`: the sample of `heard` at which the chirp was given to the speaker; what is before is the room."""
    sound = heard.astype(np.float64) / 32768
    template = chirp().astype(np.float64) / 32768
    before = sound[:played_at] if played_at else sound[:1]
    size = 1 << int(np.ceil(np.log2(len(sound) + len(template))))
    spectrum = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(template, size))
    matched = np.abs(np.fft.irfft(spectrum, size)[: max(1, len(sound) - len(template) + 1)])
    after = matched[played_at:]
    peak = int(np.argmax(after)) if len(after) else 0
    top = float(after[peak]) if len(after) else 0.0
    direct = round(_DIRECT_S * SAMPLE_RATE_HZ)
    away = np.delete(matched, slice(max(0, played_at + peak - direct), played_at + peak + round(0.6 * SAMPLE_RATE_HZ)))
    rest = float(away.mean()) if len(away) else 0.0
    tail = after[peak + round(_CANCELLED_S * SAMPLE_RATE_HZ) : peak + round(0.6 * SAMPLE_RATE_HZ)]
    energy = float(np.dot(template, template))
    sound_energy = float(np.square(after[max(0, peak - direct) : peak + direct]).sum())
    # A level: the gain that the peak shows, on the template's own RMS.
    level = top / energy * float(np.sqrt(np.mean(template**2)))
    tail_energy = max(0.0, float(np.square(tail).sum()) - len(tail) * rest**2 * np.pi / 2)  # less the noise's part
    return Heard(
        floor_dbfs=_db(float(np.sqrt(np.mean(before**2)))),
        clipped=float(np.mean(np.abs(heard.astype(np.int32)) >= 32700)),
        over_noise=top / rest if rest > 0 else 0.0,
        level_dbfs=_db(level),
        delay_ms=peak / SAMPLE_RATE_HZ * 1000,
        room_db=_db(np.sqrt(tail_energy / sound_energy)) if sound_energy > 0 else -120.0,
    )


def judge_sound(heard: Heard | None, microphone: str, speaker: str, played: bool = True) -> list[Finding]:
    """`microphone`, `speaker`: why each cannot be used, or "". `heard` is None where there is no microphone; `played`
    is False where the speaker's sound goes nowhere (a file) or must not be made."""
    found = []
    if microphone or heard is None:
        found.append(failed("microphone", "microphone_missing", microphone or "it gives nothing"))
    elif heard.floor_dbfs < _SILENT_DBFS and heard.over_noise < _FOUND:
        found.append(failed("microphone", "microphone_muted", f"nothing but silence ({heard.floor_dbfs:.0f} dBFS)"))
    elif heard.clipped > _CLIPPED:
        found.append(warned("microphone", "microphone_overloaded", f"{heard.clipped:.1%} of the sound is clipped"))
    else:
        found.append(passed("microphone", Group.MICROPHONE, f"the room is at {heard.floor_dbfs:.0f} dBFS"))
    if speaker:
        found.append(failed("speaker", "speaker_missing", speaker))
    elif not played:
        found.append(untested("speaker", Group.SPEAKER, "nothing was played"))
    elif found[0].cause in ("microphone_missing", "microphone_muted") or heard is None:
        found.append(untested("speaker", Group.SPEAKER, "played, with no microphone to hear it"))
    elif heard.over_noise < _FOUND:
        found.append(failed("speaker", "speaker_unheard", "played, and not heard by the microphone"))
    else:
        says = f"heard at {heard.level_dbfs:.0f} dBFS after {heard.delay_ms:.0f} ms, room {heard.room_db:.0f} dB"
        if heard.level_dbfs < _FAINT_DBFS:
            found.append(warned("speaker", "speaker_faint", says))
        elif heard.delay_ms > _LATE_MS:
            found.append(warned("speaker", "sound_late", says))
        elif heard.room_db > _LONG_ROOM_DB:
            found.append(warned("speaker", "room_echoes", says))
        else:
            found.append(passed("speaker", Group.SPEAKER, says))
    return found


def _db(part: float) -> float:
    return 20 * float(np.log10(max(part, 1e-6)))
