"""Pictures from packets: whole, in order, at once, and never a delta that its decoder could not use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.media.pictures import LEAST_GAP_WAIT_S, EncodedPicture, PictureAssembler

KEY, DELTA = b"\x00", b"\x01"
Packet = tuple[int, int, bool, bool, bytes]  # sequence number, timestamp, marker, starts, data


def picture(number: int, first: int, parts: int = 3, key: bool = False) -> list[Packet]:
    return [
        (
            (first + part) % 2**16,
            number * 6000 % 2**32,
            part == parts - 1,
            part == 0,
            (KEY if key else DELTA) + bytes([number % 256]) if part == 0 else bytes([number % 256, part]),
        )
        for part in range(parts)
    ]


def stream(count: int, keys: tuple[int, ...] = (0,), parts: int = 3, first: int = 0) -> list[Packet]:
    return [packet for n in range(count) for packet in picture(n, first + n * parts, parts, n in keys)]


def numbers(pictures: list[EncodedPicture]) -> list[int]:
    return [shown.data[1] for shown in pictures]


def feed(
    assembler: PictureAssembler, packets: list[Packet], start: float = 0.0, step: float = 0.01
) -> list[EncodedPicture]:
    return [shown for n, packet in enumerate(packets) for shown in assembler.add(*packet, start + n * step)]


def test_each_picture_goes_out_with_its_last_packet() -> None:
    assembler = PictureAssembler()
    for n, packet in enumerate(stream(5)):
        assert len(assembler.add(*packet, 0.0)) == (1 if n % 3 == 2 else 0)


def test_whole_pictures_in_order_over_both_wraps() -> None:
    first = 2**16 - 40
    packets = [(s, (t + 2**32 - 60_000) % 2**32, m, b, d) for s, t, m, b, d in stream(60, first=first)]
    shown = feed(PictureAssembler(), packets)

    assert numbers(shown) == list(range(60))
    assert [each.time_ms for each in shown] == [n * 6000 // 90 for n in range(60)]
    assert [each.key for each in shown] == [True] + [False] * 59
    assert shown[3].data == DELTA + bytes([3, 3, 1, 3, 2])


def test_padding_between_pictures_is_no_gap() -> None:
    packets = stream(6)
    padded: list[Packet] = []
    for _, timestamp, marker, starts, data in packets:
        padded.append((len(padded), timestamp, marker, starts, data))
        if marker:
            padded += [(len(padded) + n, timestamp, False, False, b"") for n in range(3)]
    assembler = PictureAssembler()
    assert numbers(feed(assembler, padded)) == list(range(6))
    assert not assembler.wants_key_frame
    assert assembler.missing() == []


def test_deltas_before_the_first_key_frame_are_held_back_and_one_is_asked_for() -> None:
    assembler = PictureAssembler()

    assert feed(assembler, stream(4, keys=())) == []
    assert assembler.wants_key_frame
    assert numbers(feed(assembler, picture(4, 12, key=True) + picture(5, 15))) == [4, 5]
    assert not assembler.wants_key_frame


def test_reordered_and_repeated_packets_change_nothing() -> None:
    packets = stream(20)
    for n in range(0, 60, 4):
        packets[n], packets[n + 3] = packets[n + 3], packets[n]
    doubled = [packet for packet in packets for _ in range(2)]

    assert numbers(feed(PictureAssembler(), [stream(1)[0], *doubled], step=0.001)) == list(range(20))


def test_a_retransmission_fills_the_gap_and_all_that_waited_goes_out() -> None:
    packets = stream(10)
    missing = packets.pop(13)
    assembler = PictureAssembler()
    before = feed(assembler, packets)
    after = assembler.add(*missing, 0.4)

    assert numbers(before) == [0, 1, 2, 3]
    assert numbers(after) == [4, 5, 6, 7, 8, 9]
    assert not assembler.wants_key_frame


def test_an_unfilled_gap_ends_in_a_wish_for_a_key_frame_and_no_garbage() -> None:
    packets = stream(60)
    del packets[13]
    assembler = PictureAssembler()
    shown = feed(assembler, packets, step=LEAST_GAP_WAIT_S / 90)

    assert numbers(shown) == [0, 1, 2, 3]
    assert assembler.wants_key_frame
    assert numbers(feed(assembler, picture(60, 180, key=True) + picture(61, 183), start=2.0)) == [60, 61]


def test_a_retransmission_that_comes_after_a_key_frame_was_asked_for_is_as_good() -> None:
    packets = stream(60)
    missing = packets.pop(13)
    assembler = PictureAssembler()
    feed(assembler, packets[:100])
    assert assembler.wants_key_frame

    assert numbers(assembler.add(*missing, 2.0)) == list(range(4, 33))
    assert not assembler.wants_key_frame


def test_a_key_frame_is_wished_for_in_time_though_nothing_comes() -> None:
    packets = stream(5)
    del packets[10]
    assembler = PictureAssembler()
    assembler.gap_wait_s = 0.9
    feed(assembler, packets)
    assembler.wait_over(0.9)
    assert not assembler.wants_key_frame
    assembler.wait_over(1.2)
    assert assembler.wants_key_frame


def test_what_is_missing_is_what_is_of_use() -> None:
    first = 2**16 - 7
    packets = stream(10, keys=(0, 6), first=first)
    assembler = PictureAssembler()
    assert assembler.missing() == []
    feed(assembler, [*packets[:5], *packets[7:9], packets[11]])
    assert assembler.missing() == [first + n for n in (5, 6, 9, 10)]  # counted on
    feed(assembler, packets[5:7])
    assert assembler.missing() == [first + n for n in (9, 10)]
    feed(assembler, packets[19:21])  # of a key picture
    assembler.require_key_frame()
    assert assembler.missing() == [first + n for n in (10, 18)]
    feed(assembler, [packets[18], packets[23]])
    assert assembler.missing() == [first + n for n in (21, 22)]


def test_a_key_frame_after_the_gap_is_taken_at_once() -> None:
    packets = stream(10, keys=(0, 6))
    del packets[13]

    assert numbers(feed(PictureAssembler(), packets)) == [0, 1, 2, 3, 6, 7, 8, 9]


def test_a_loss_further_on_starts_again_from_a_key_frame() -> None:
    assembler = PictureAssembler()
    packets = stream(10, keys=(0, 6))
    feed(assembler, packets[:9])
    assembler.require_key_frame()

    assert numbers(feed(assembler, packets[9:])) == [6, 7, 8, 9]


@given(st.data())
def test_whatever_is_lost_delayed_or_doubled_every_picture_can_be_decoded(data: st.DataObject) -> None:
    """A decoder can use a delta only right after the picture before it."""
    keys = tuple(data.draw(st.sets(st.integers(0, 39), max_size=5)))
    packets = stream(40, keys, parts=2, first=data.draw(st.integers(0, 2**16 - 1)))
    order = sorted(
        (n + data.draw(st.integers(0, 6)), n)
        for n in range(len(packets))
        for _ in range(data.draw(st.sampled_from([0, 1, 1, 1, 1, 2])))
    )
    assembler = PictureAssembler()
    shown = [each for at, n in order for each in assembler.add(*packets[n], at * 0.02)]

    last = None
    for each in shown:
        number = each.data[1]
        assert len(each.data) == 4
        assert each.key == (number in keys)
        assert each.key or number == last + 1  # type: ignore[operator]
        assert last is None or number > last
        last = number


def test_after_a_still_that_came_by_another_way_only_a_key_frame_goes_out() -> None:
    assembler = PictureAssembler()
    packets = stream(6, keys=(0, 4))
    before = feed(assembler, packets[:6])
    still = assembler.still(b"frame")
    assert (still.key, still.still, still.data) == (True, True, b"frame")
    assert assembler.wants_key_frame
    after = feed(assembler, packets[6:])
    assert numbers(before) == [0, 1]
    assert numbers(after) == [4, 5]
    times = [each.time_ms for each in (*before, still, *after)]
    assert times == sorted(times)
