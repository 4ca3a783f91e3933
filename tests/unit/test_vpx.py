"""VP8 as the kit codes it: what changes in place, what is kept to, what may be lost."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.core.voice import PicturePlan
from edge_agent.media import vpx
from edge_agent.media.vpx import CodedPicture, LibvpxEncoder, PictureEncoder, PyavEncoder

WIDTH, HEIGHT = 160, 120
_WALL = np.repeat(np.random.default_rng(5).integers(40, 215, (15, 40)).astype(np.uint8), 8, 0).repeat(8, 1)


def film(number: int) -> NDArray[np.uint8]:
    """A wall that goes by before a camera with some noise, as I420."""
    picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    noise = np.random.default_rng(number).integers(-15, 16, (HEIGHT, WIDTH))
    picture[:HEIGHT] = np.roll(_WALL, 2 * number, 1)[:, :WIDTH] + noise
    return picture


def plan(bps: int, rate: float = 10.0) -> PicturePlan:
    return PicturePlan(bps, WIDTH, HEIGHT, rate)


def coded(
    encoder: PictureEncoder, told: PicturePlan, first: int, count: int, **more: bool
) -> list[CodedPicture | None]:
    return [encoder.encode(film(n), told, n / told.rate, **more) for n in range(first, first + count)]


def bps(pictures: list[CodedPicture | None], rate: float = 10.0) -> float:
    return sum(8 * len(each.data) for each in pictures if each is not None) * rate / len(pictures)


def errors(pictures: list[tuple[int, CodedPicture]]) -> list[float]:
    """Mean difference in grey levels of what a decoder shows, picture by picture."""
    decoder: Any = av.CodecContext.create("libvpx", "r")
    found = []
    for number, each in pictures:
        for frame in decoder.decode(av.Packet(each.data)):
            shown = frame.to_ndarray(format="yuv420p")[:HEIGHT].astype(int)
            found.append(float(np.abs(shown - film(number)[:HEIGHT]).mean()))
    return found


@pytest.fixture
def encoder() -> LibvpxEncoder:
    library = vpx.library()
    assert library is not None, "the wheel's libvpx is laid out in another way: read edge_agent/media/vpx.py against it"
    return LibvpxEncoder(library)


def test_the_rate_changes_in_place(encoder: LibvpxEncoder) -> None:
    keys, rates = 0, []
    for turn, target in enumerate((60_000, 20_000, 100_000, 35_000)):
        made = coded(encoder, plan(target), 60 * turn, 60)
        keys += sum(each.key for each in made if each is not None)
        rates.append(bps(made[20:]) / target)
    assert keys == 1
    assert all(0.8 < rate < 1.15 for rate in rates), rates


def test_pictures_a_second_change_in_place(encoder: LibvpxEncoder) -> None:
    made = []
    at = 0.0
    for number in range(90):
        told = plan(40_000, 15.0 if 30 <= number < 60 else 5.0)
        at += 1 / told.rate
        made.append(encoder.encode(film(number), told, at))
    assert sum(each.key for each in made if each is not None) == 1
    assert 0.8 < bps(made[40:60], 15.0) / 40_000 < 1.2
    assert 0.8 < bps(made[70:], 5.0) / 40_000 < 1.2


def test_a_still_has_the_size_that_was_asked_for(encoder: LibvpxEncoder) -> None:
    made = coded(encoder, plan(1_600, 0.2), 0, 12)  # 1000 bytes each five seconds
    assert 700 <= np.mean([0 if each is None else len(each.data) for each in made[4:]]) <= 1200


def test_after_a_pause_no_picture_is_bloated(encoder: LibvpxEncoder) -> None:
    """What stock encoders do: what was saved in the pause is spent on the next picture, which then blocks the link."""
    told = plan(30_000)
    coded(encoder, told, 0, 30)
    after = [encoder.encode(film(30 + n), told, 3 + 4.0 * n) for n in range(1, 10)]
    assert max(len(each.data) for each in after if each is not None) < 4 * 30_000 / 8 / 10


def test_a_key_picture_is_bounded_and_made_only_when_asked_for(encoder: LibvpxEncoder) -> None:
    told = plan(30_000)
    before = coded(encoder, told, 0, 30)
    key = encoder.encode(film(30), told, 3.0, key=True)
    after = coded(encoder, told, 31, 30)
    assert key is not None
    assert key.key
    assert len(key.data) < 30_000 / 8 * 0.5
    assert not any(each.key for each in [*before[1:], *after] if each is not None)


def test_another_size_begins_with_a_key_picture(encoder: LibvpxEncoder) -> None:
    encoder.encode(film(0), plan(30_000), 0.0)
    larger = PicturePlan(30_000, 320, 240, 10.0)
    first = encoder.encode(np.full((360, 320), 90, np.uint8), larger, 0.1)
    assert first is not None
    assert first.key
    with pytest.raises(ValueError, match="160×120, planned is 320×240"):
        encoder.encode(film(1), larger, 0.2)


@pytest.mark.parametrize("told", [plan(60_000), plan(9_000)])
def test_upper_pictures_can_be_lost(encoder: LibvpxEncoder, told: PicturePlan) -> None:
    """All of them, also where some are left out by the encoder, and where layers begin and end under way."""
    made = [encoder.encode(film(n), told, n / 10, layered=not 30 <= n < 50) for n in range(100)]
    kept = [(n, each) for n, each in enumerate(made) if each is not None and not each.upper]
    assert 20 < len(kept) < 80
    assert sum(each.key for _, each in kept) == 1
    whole = [(n, each) for n, each in enumerate(made) if each is not None]
    of_whole = dict(zip([n for n, _ in whole], errors(whole), strict=True))
    for (number, _), error in zip(kept, errors(kept), strict=True):
        assert error == of_whole[number]  # the same to the last bit


def test_pyavs_encoder_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vpx, "library", lambda: None)
    encoder = vpx.open_encoder()
    assert isinstance(encoder, PyavEncoder)
    made = coded(encoder, plan(40_000), 0, 40)
    assert [each.key for each in made if each is not None] == [True] + [False] * (40 - 1 - made.count(None))
    assert 0.7 < bps(made) / 40_000 < 1.2
    changed = encoder.encode(film(40), plan(20_000), 4.0)
    assert changed is not None
    assert changed.key


def test_a_library_of_another_make_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vpx, "_ENCODER_ABI_VERSION", 1)
    assert vpx.library.__wrapped__() is None
    assert "PyAV's encoder is used" in caplog.text
