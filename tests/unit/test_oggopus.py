"""Voice notes of what was said in turns, read back by FFmpeg."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from edge_agent.core.turn_parts import CODING
from edge_agent.media.opus import open_encoder
from hub import oggopus


@pytest.mark.parametrize("frames", [1, 30, 300])
def test_what_was_said_is_in_the_file(frames: int) -> None:
    tone = (8000 * np.sin(np.arange(frames * CODING.frame_samples) * 2 * np.pi * 440 / 48_000)).astype(np.int16)
    encoder = open_encoder()
    packets = [encoder.encode(frame, CODING) for frame in tone.reshape(frames, -1)]
    data, duration_ms = oggopus.wrap([*packets, b""])
    assert duration_ms == frames * CODING.frame_ms
    with av.open(io.BytesIO(data)) as container:
        assert container.format.name == "ogg"
        heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    assert 0 <= len(tone) - len(heard) <= 400  # what a decoder leaves out at the beginning
    if frames > 1:
        pitch = np.argmax(np.abs(np.fft.rfft(heard[4800:]))) * 48_000 / (len(heard) - 4800)
        assert pitch == pytest.approx(440, abs=10)


def test_nothing_said_is_no_sound() -> None:
    data, duration_ms = oggopus.wrap([])
    assert (data[:4], duration_ms) == (b"OggS", 0)
