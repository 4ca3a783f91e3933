import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import trust, wire

TOPIC = wire.down_topic("kiosk-one", "c")
HUB, KIOSK, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
KIOSK_SEAL, OTHER_SEAL = X25519PrivateKey.generate(), X25519PrivateKey.generate()


def say(message=b"state of a call", *, topic=TOPIC, signer=HUB, reader=KIOSK_SEAL, counter=7, expires_at_ms=5000):
    public = reader.public_key() if reader else None
    return trust.wrap(message, topic, signer, public, counter=counter, expires_at_ms=expires_at_ms)


def hear(payload, *, topic=TOPIC, signer=HUB, reader=KIOSK_SEAL, wall_ms=1000, allow_open=False):
    return trust.unwrap(payload, topic, signer.public_key(), reader, wall_ms=wall_ms, allow_open=allow_open)


@given(st.binary(max_size=2000))
def test_what_was_said_is_heard(message):
    assert hear(say(message)) == (message, 7, "")
    assert hear(say(message, reader=None), allow_open=True) == (message, 7, "")


def test_the_cost_of_it():
    press = wire.encode(
        wire.Message(wire.CallRequested(wire.new_message_id(), 1_790_000_000_000), wire.new_consult_id())
    )
    counter = 1_790_000_000_000_000
    signed = say(press, reader=None, counter=counter, expires_at_ms=1_790_000_000_000)
    assert len(signed) - len(press) <= 100
    assert len(say(press, counter=counter, expires_at_ms=1_790_000_000_000)) - len(signed) == trust.SEAL_BYTES


def test_nothing_of_the_message_is_readable():
    assert b"fever" not in say(b"fever since three days")


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (say(signer=STRANGER), trust.Forged),
        (say(topic=wire.down_topic("kiosk-two", "c")), trust.Unreadable),
        (say(topic=wire.up_topic("kiosk-one", "c")), trust.Unreadable),
        (say(reader=OTHER_SEAL), trust.Unreadable),
        (say(reader=None), trust.Forged),  # open where only sealed is taken
        (say(expires_at_ms=999), trust.Expired),
        (b"", trust.Forged),
        (b"\x02", trust.Unreadable),
        (b"\x03" + say()[1:], trust.Forged),
    ],
    ids=[
        "another signer",
        "another kiosk",
        "another direction",
        "another reader",
        "open",
        "expired",
        "empty",
        "short",
        "another form",
    ],
)
def test_what_is_not_believed(payload, error):
    with pytest.raises(error):
        hear(payload)


def test_an_open_message_moved_to_another_topic_is_forged():
    status = say(reader=None, topic=wire.up_topic("kiosk-one", "s"))
    with pytest.raises(trust.Forged):
        hear(status, topic=wire.up_topic("kiosk-two", "s"), allow_open=True)


def test_without_a_trusted_clock_expiry_is_not_judged():
    assert hear(say(expires_at_ms=999), wall_ms=None).message == b"state of a call"


@given(st.data())
def test_one_altered_bit_anywhere_is_noticed(data):
    payload = bytearray(say())
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(trust.TrustError):
        hear(bytes(payload))


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_else(garbage):
    for form in (b"", b"\x01", b"\x02"):
        with pytest.raises(trust.TrustError):
            hear(form + garbage, allow_open=True)


@given(st.lists(st.integers(0, 20), max_size=30))
def test_replayed_or_overtaken_is_refused_for_each_sender_alone(counters):
    replays = trust.Replays()
    highest = -1
    for counter in counters:
        if counter > highest:
            replays.check("kiosk-one", counter)
            highest = counter
        else:
            with pytest.raises(trust.Replayed):
                replays.check("kiosk-one", counter)
    replays.check("kiosk-two", 0)


@given(st.integers(0, 2**50), st.lists(st.integers(0, 2**43), min_size=1, max_size=20))
def test_counters_rise_whatever_the_clock_does(floor, clock):
    counter = trust.Counter(floor)
    numbers = []
    for wall_ms in clock:
        numbers.append(counter.next(wall_ms))
        counter.kept(counter.floor_to_keep(wall_ms))
    assert numbers == sorted(set(numbers))
    assert numbers[0] > floor


@given(st.lists(st.tuples(st.integers(0, 2**43), st.booleans(), st.booleans()), max_size=40))
def test_no_number_comes_twice_over_deaths_at_any_moment(steps):
    on_disk, used, saved = 0, set(), False
    counter = trust.Counter()
    for wall_ms, saves, dies in steps:
        if saves:
            on_disk = counter.floor_to_keep(wall_ms)
            counter.kept(on_disk)
            saved = True
        if saved:  # nothing is said before that
            used_now = counter.next(wall_ms)
            assert used_now not in used
            used.add(used_now)
        if dies:
            counter, saved = trust.Counter(on_disk), False


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_chunks_are_read_by_whoever_has_the_files_key_alone(message, data):
    topic, key = wire.up_topic("kiosk-one", "f"), wire.new_file_key()
    payload = trust.wrap_chunk(message, topic, key)
    assert len(payload) - len(message) == 37
    assert trust.named_key(payload) == trust.name_of_key(key)
    assert trust.unwrap_chunk(payload, topic, key) == message
    altered = bytearray(payload)
    altered[data.draw(st.integers(9, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for wrong in (
        (bytes(altered), topic, key),
        (payload, wire.up_topic("kiosk-two", "f"), key),
        (payload, topic, wire.new_file_key()),
    ):
        with pytest.raises(trust.TrustError):
            trust.unwrap_chunk(*wrong)


@given(st.binary(max_size=100))
def test_garbage_is_no_chunk(garbage):
    for form in (b"", b"\x02", b"\x03"):
        with pytest.raises(trust.TrustError):
            trust.unwrap_chunk(form + garbage, TOPIC, bytes(32))
