"""A courier's stick that is pulled out at any byte has whole bundles and leftovers, and nothing between."""

from __future__ import annotations

import io

import pytest

from edge_agent.core.courier import MAX_RECORD_BYTES, NotWhole, Sealed, check, records, written
from kiosk.stick import PART, TO_HUB, Stick, StickUnusable

CONTENT = [Sealed("tc1/hill-1/u/e", b"note"), Sealed("tc1/hill-1/u/f", bytes(range(256)) * 3)]
KIOSK = "hill-1"


def bundle(content: list[Sealed]) -> bytes:
    return b"".join(written(content))


def read(data: bytes) -> list[Sealed]:
    file = io.BytesIO(data)
    check(file)
    file.seek(0)
    return list(records(file))


@pytest.mark.parametrize("content", [CONTENT, [], CONTENT[:1] * 500])
def test_what_is_written_is_read(content: list[Sealed]):
    assert read(bundle(content)) == content


def test_cut_off_anywhere_it_is_not_whole():
    data = bundle(CONTENT)
    for length in range(len(data)):
        with pytest.raises(NotWhole):
            read(data[:length])


def test_altered_anywhere_it_is_not_whole():
    data = bundle(CONTENT)
    for at in range(len(data)):
        with pytest.raises(NotWhole):
            read(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])


def test_a_record_that_claims_gigabytes_is_not_read():
    with pytest.raises(NotWhole, match="a record of"):
        list(records(io.BytesIO(bundle([])[:22] + (MAX_RECORD_BYTES + 1).to_bytes(4, "big"))))


def test_a_stick_pulled_out_half_way_has_whole_bundles_and_leftovers(tmp_path):
    stick = Stick(tmp_path)
    stick.prepare(TO_HUB, KIOSK)
    stick.write(TO_HUB, KIOSK, "first", CONTENT)

    def until_it_is_pulled_out():
        yield CONTENT[0]
        raise OSError("pulled out")

    with pytest.raises(OSError, match="pulled out"):
        stick.write(TO_HUB, KIOSK, "second", until_it_is_pulled_out())
    assert [path.stem for path in stick.bundles(TO_HUB, KIOSK)] == ["first"]
    assert list(tmp_path.rglob(f"*{PART}"))
    assert not stick.holds(TO_HUB, KIOSK, "second")
    stick.clear_leftovers(TO_HUB, KIOSK)
    assert not list(tmp_path.rglob(f"*{PART}"))
    stick.write(TO_HUB, KIOSK, "second", CONTENT)
    assert stick.holds(TO_HUB, KIOSK, "second")
    [first, _] = stick.bundles(TO_HUB, KIOSK)
    first.write_bytes(first.read_bytes()[:-5])  # a card that forgot its last block
    assert not stick.holds(TO_HUB, KIOSK, "first")
    with pytest.raises(NotWhole):
        list(stick.read(first))
    assert stick.kiosks(TO_HUB) == [KIOSK]


def test_names_on_a_stick_are_not_believed(tmp_path):
    for name in ("..", "UPPER", "a b", "x"):
        (tmp_path / "teleconsult" / TO_HUB / name).mkdir(parents=True, exist_ok=True)
    assert Stick(tmp_path).kiosks(TO_HUB) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StickUnusable, match="put the stick in"):
        Stick(tmp_path / "nothing")
