"""A known delay, loss or freeze gives the known figure."""

import numpy as np
import pytest

from tests.bench.marks import judge_outage, judge_pictures, judge_voice, ssim
from tests.bench.material import prepare
from tests.bench.recording import Piece, Sound, lay_out
from tests.e2e.pictures import LOOP, RATE
from tests.e2e.speech import SCORE_RATE_HZ, read_wav

RATE_HZ = 48_000
BLOCK = 960


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("material"), None)


@pytest.fixture(scope="module")
def said(material):
    """A minute from second 100 on, as it is scored."""
    speech = read_wav(material.patient)
    return lay_out([Piece(100.0, RATE_HZ, np.tile(speech, 3)[: 60 * RATE_HZ])])


def delayed(sound: Sound, delay_s: float) -> Sound:
    return Sound(sound.start + delay_s, sound.samples)


def changed(sound: Sound, samples) -> Sound:
    return Sound(sound.start, samples)


@pytest.mark.parametrize("delay_s", [0.02, 0.437, 3.1])
def test_a_known_delay(said, delay_s):
    marks = judge_voice(said, delayed(said, delay_s), 105.0, 145.0)
    assert marks.delay_p50_ms == pytest.approx(delay_s * 1000, abs=1)
    assert marks.delay_p95_ms == pytest.approx(delay_s * 1000, abs=1)
    assert marks.heard == 1.0
    assert marks.pesq > 4.5


def test_a_delay_that_grows(said):
    """Half the time 200 ms, then 900: the median of one and the p95 of the other."""
    half = 20 * SCORE_RATE_HZ
    samples = np.concatenate([said.samples[:half], np.zeros(int(0.7 * SCORE_RATE_HZ)), said.samples[half:]])
    marks = judge_voice(said, Sound(100.2, samples), 102.0, 142.0)
    assert marks.delay_p95_ms == pytest.approx(900, abs=2)
    assert {delay for delay in marks.delays_ms if delay is not None} <= {200, 900}


def test_the_share_that_was_heard(said):
    gone = said.samples.copy()
    gone[10 * SCORE_RATE_HZ : 20 * SCORE_RATE_HZ] = 0
    marks = judge_voice(said, changed(said, gone), 100.0, 140.0)
    spoken = sum(1 for _ in marks.delays_ms)
    assert marks.heard == pytest.approx(1 - 10 / spoken, abs=1.5 / spoken)
    whole = judge_voice(said, said, 100.0, 140.0)
    assert marks.pesq < whole.pesq - 0.5


def test_nothing_was_heard(said):
    silence = changed(said, np.zeros_like(said.samples))
    marks = judge_voice(said, silence, 100.0, 140.0)
    assert (marks.pesq, marks.heard, marks.delay_p50_ms) == (1.0, 0.0, None)
    noise = changed(said, np.random.default_rng(1).normal(0, 2000, len(said.samples)))
    marks = judge_voice(said, noise, 100.0, 140.0)
    assert (marks.pesq, marks.heard) == (1.0, 0.0)


def test_other_speech_is_not_taken_for_it(said, material):
    other = read_wav(material.doctor)
    played = lay_out([Piece(100.0, RATE_HZ, np.tile(other, 3)[: 60 * RATE_HZ])])
    marks = judge_voice(said, played, 100.0, 140.0)
    assert marks.heard <= 0.1
    assert marks.pesq < 1.5


def test_after_an_outage(said):
    """Nothing from 110 to 116; what follows comes 1.5 s late until 119, then at the usual 300 ms."""
    rate = SCORE_RATE_HZ
    played = np.zeros(int(60 * rate))
    at = said.samples

    def play(first_s: float, last_s: float, delay_s: float) -> None:
        start = round((first_s + delay_s) * rate)
        length = round((last_s - first_s) * rate)
        played[start : start + length] = at[round(first_s * rate) : round(first_s * rate) + length]

    play(0, 10, 0.3)
    play(16, 18.5, 1.5)
    play(20, 50, 0.3)
    marks = judge_outage(said, changed(said, played), 116.0, 300.0)
    assert marks.voice_back_s == pytest.approx(1.5, abs=0.4)  # to the next word
    assert marks.delay_normal_s == pytest.approx(4.3, abs=0.6)


def test_pieces_go_where_they_sounded():
    rng = np.random.default_rng(2)
    speech = rng.normal(0, 3000, 10 * RATE_HZ).astype(np.int16)
    blocks = speech.reshape(-1, BLOCK)
    late = rng.exponential(0.004, len(blocks))  # stamped when the program got round to it
    late[100:110] += 0.15
    pieces = [Piece(50 + n * 0.02 + late[n], RATE_HZ, block) for n, block in enumerate(blocks)]
    sound = lay_out(pieces)
    whole = lay_out([Piece(50.0, RATE_HZ, speech)])
    assert sound.start == pytest.approx(50.0, abs=0.005)
    assert len(sound.samples) == pytest.approx(len(whole.samples), abs=0.01 * SCORE_RATE_HZ)
    cut = slice(SCORE_RATE_HZ, 9 * SCORE_RATE_HZ)
    assert np.corrcoef(sound.samples[cut], whole.samples[cut])[0, 1] > 0.99


def test_a_pause_is_silence():
    tone = (8000 * np.sin(np.arange(RATE_HZ) * 2 * np.pi * 500 / RATE_HZ)).astype(np.int16)
    blocks = tone.reshape(-1, BLOCK)
    pieces = [Piece(n * 0.02 + (0.4 if n >= 25 else 0.0), RATE_HZ, block) for n, block in enumerate(blocks)]
    sound = lay_out(pieces)
    assert np.abs(sound.between(0.52, 0.88)).max() < 100
    assert np.abs(sound.between(0.92, 1.3)).max() > 7000
    assert np.abs(sound.between(-2.0, -1.0)).max() == 0


def shown_every(step, delay_s, until, begin=100.0):
    """Every `step`th picture, `delay_s` late, `until(at)` telling whether it was."""
    sent = [(begin + n / RATE, n % LOOP) for n in range(40 * RATE)]
    return sent, [(at + delay_s, number) for n, (at, number) in enumerate(sent) if n % step == 0 and until(at)]


def test_pictures_and_their_latency(material):
    sent, shown = shown_every(3, 0.35, lambda at: True)
    shown = sorted(shown + [(at + 0.016, number) for at, number in shown])  # each is drawn twice
    stills = [(30, material.originals[30])]
    marks = judge_pictures(sent, shown, stills, material.originals, 105.0, 135.0)
    assert marks.per_second == pytest.approx(RATE / 3, rel=0.02)
    assert marks.latency_p50_ms == pytest.approx(350, abs=1)
    assert (marks.freezes, marks.frozen) == (0, 0.0)
    assert marks.ssim == pytest.approx(1.0)


def test_freezes(material):
    sent, shown = shown_every(1, 0.2, lambda at: not 110 <= at < 113 and at < 131)
    marks = judge_pictures(sent, shown, [], material.originals, 105.0, 135.0)
    assert marks.freezes == 2
    assert marks.frozen == pytest.approx((3.0 + 3.8) / 30, abs=0.01)
    assert judge_pictures(sent, [], [], material.originals, 105.0, 135.0).frozen == 1.0


def test_ssim_falls_with_blur_and_with_another_picture(material):
    import cv2

    original = material.originals[10]
    blurred = cv2.GaussianBlur(original, (0, 0), 3)
    assert ssim(original, original) == pytest.approx(1.0)
    assert 0.3 < ssim(original, blurred) < 0.95
    noise = np.random.default_rng(3).integers(0, 256, original.shape, np.uint8)
    assert ssim(original, noise) < 0.1
