"""The coders of the voice: everything changes in place and without a seam, and PyAV's stand in for libopus."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_agent.core import opuspacket
from edge_agent.core.voice import Coding
from edge_agent.media.opus import LibopusEncoder, PyavEncoder, library, open_decoder, open_encoder
from tests.listening import clicks, speech

needs_libopus = pytest.mark.skipif(library() is None, reason="PyAV's wheel has no libopus that loads")

CHANGES = (
    Coding(24_000, 20),
    Coding(6_000, 120),
    Coding(32_000, 20),
    Coding(10_000, 60, dtx=True),
    Coding(20_000, 40, fec=True, expected_loss_percent=20),
    Coding(8_000, 80),
    Coding(16_000, 100),
)


@needs_libopus
def test_rates_and_frames_change_in_place_without_a_seam() -> None:
    encoder, decoder = open_encoder(), open_decoder()
    sound, at, number, pieces, sizes = speech(), 0, 0, [], dict[Coding, int]()
    while at + 5760 <= len(sound):
        coding = CHANGES[number // 8 % len(CHANGES)]
        packet = encoder.encode(sound[at : at + coding.frame_samples], coding)
        assert opuspacket.duration_samples(packet) == coding.frame_samples
        sizes[coding] = max(sizes.get(coding, 0), len(packet) * 8000 // coding.frame_ms)
        pieces.append(decoder.decode(packet))
        at += coding.frame_samples
        number += 1
    played = np.concatenate(pieces)

    assert number > len(CHANGES) * 8
    assert len(played) == at
    assert clicks(played) <= clicks(sound[:at])
    assert sizes[CHANGES[1]] < sizes[CHANGES[0]] < sizes[CHANGES[2]] * 1.5


@needs_libopus
@pytest.mark.parametrize("bps", [6_000, 12_000, 24_000])
def test_the_rate_asked_for_is_kept(bps: int) -> None:
    encoder, sound, coding = LibopusEncoder(library()), speech(), Coding(bps, 60)  # type: ignore[arg-type]
    spent = sum(len(encoder.encode(sound[at : at + 2880], coding)) for at in range(0, len(sound) - 2879, 2880))
    assert 0.85 <= spent * 8 / (len(sound) / 48_000) / bps <= 1.02


@needs_libopus
def test_the_coarse_copy_is_there_from_20_kbit_s() -> None:
    encoder, sound = open_encoder(), speech()

    def share(coding: Coding) -> float:
        size = coding.frame_samples
        packets = [encoder.encode(sound[at : at + size], coding) for at in range(0, len(sound) - size + 1, size)]
        return sum(map(opuspacket.has_fec, packets)) / len(packets)

    assert share(Coding(20_000, 20, fec=True, expected_loss_percent=10)) > 0.7
    assert share(Coding(20_000, 20)) < 0.02


@needs_libopus
@pytest.mark.parametrize("frame_ms", [20, 60, 120])
def test_silence_is_told_and_then_left_out(frame_ms: int) -> None:
    coder, coding = open_encoder(), Coding(8_000, frame_ms, dtx=True)
    packets = [coder.encode(np.zeros(coding.frame_samples, np.int16), coding) for _ in range(3000 // frame_ms)]
    told = [number * frame_ms for number, packet in enumerate(packets) if not opuspacket.is_pause(packet)]

    assert len(told) <= 1500 / frame_ms
    assert max(later - before for before, later in pairwise(told)) <= 500


def test_pyav_codes_the_same_lengths() -> None:
    encoder, decoder = PyavEncoder(), open_decoder()
    for coding in (Coding(24_000, 20), Coding(8_000, 60), Coding(8_000, 120)):
        packet = encoder.encode(speech()[: coding.frame_samples], coding)
        assert len(decoder.decode(packet)) == coding.frame_samples


@needs_libopus
def test_a_frame_of_another_length_than_said_is_refused() -> None:
    with pytest.raises(ValueError, match="20 ms"):
        open_encoder().encode(np.zeros(480, np.int16), Coding())
