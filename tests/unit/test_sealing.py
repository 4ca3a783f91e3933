"""The kiosk's end of signed messages: whatever a broker makes of one, it is taken as it was said, or refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import KioskClock
from edge_agent.core import trust, wire
from edge_agent.sealing import Sealing

KIOSK, HUB = (trust.OwnKeys(ec.generate_private_key(ec.SECP256R1()), X25519PrivateKey.generate()) for _ in range(2))
FILE_KEY, DIGEST = wire.new_file_key(), bytes(32)
TOPICS = [wire.down_topic("kiosk-1", channel) for channel in "scef"] + [wire.hub_topic("1"), wire.hub_topic("2")]


def far(own: trust.OwnKeys) -> trust.FarKeys:
    return trust.FarKeys(own.signing.public_key(), own.sealing.public_key())


def kiosk(saved: bytes = b"") -> Sealing:
    sealing = Sealing("kiosk-1", KIOSK, far(HUB), KioskClock(b""), saved)
    sealing.file_keys = lambda name: (bytes(16), DIGEST, FILE_KEY) if name == trust.name_of_key(FILE_KEY) else None
    return sealing


def hub_says(body: wire.Body, counter: int = 5) -> tuple[str, bytes]:
    if isinstance(body, wire.Chunk):
        return TOPICS[3], trust.wrap_chunk(wire.encode_chunk(body), TOPICS[3], FILE_KEY)
    encoded = wire.encode(wire.Message(body))
    status = isinstance(body, wire.HubStatus)
    topic = TOPICS[4] if status else wire.down_topic("kiosk-1", body.CHANNEL)
    reader = None if status else KIOSK.sealing.public_key()
    return topic, trust.wrap(encoded, topic, HUB.signing, reader, counter=counter, sender="1")


SAID = [
    hub_says(wire.Presence("here")),
    hub_says(wire.CallState(b"c" * 8, "ended", outcome="answered")),
    hub_says(wire.Progress("seen", 1)),
    hub_says(wire.Chunk(DIGEST, 0, b"sound")),
    hub_says(wire.HubStatus(online=True)),
]


@pytest.mark.parametrize(("topic", "payload"), SAID, ids=["presence", "call", "progress", "chunk", "hub"])
def test_what_the_hub_says_is_heard(topic, payload):
    assert kiosk().open(topic, payload)


@given(
    st.sampled_from(SAID), st.sampled_from(TOPICS), st.integers(0, 400), st.binary(max_size=20), st.integers(0, 30)
)  # fmt: skip
def test_what_is_altered_or_moved_is_refused_and_nothing_else_comes_out(said, topic, at, put, cut):
    payload = said[1][:at] + put + said[1][at + cut :]
    if (topic, payload) == said:
        return
    with pytest.raises((trust.TrustError, wire.WireError)):
        kiosk().open(topic, payload)


@given(st.sampled_from(TOPICS), st.binary(max_size=300))
def test_garbage_is_refused(topic, payload):
    with pytest.raises((trust.TrustError, wire.WireError)):
        kiosk().open(topic, payload)


def test_in_the_clear_nothing_is_taken():
    for topic in TOPICS:
        for body in (wire.Presence("here"), wire.HubStatus(online=True)):
            with pytest.raises(trust.Forged):
                kiosk().open(topic, wire.encode(wire.Message(body)))


def test_said_again_it_is_refused_over_a_restart_too_but_what_is_durable_or_retained_is_read_again():
    one = kiosk()
    topic, payload = hub_says(wire.Presence("busy"), counter=9)
    one.open(topic, payload)
    with pytest.raises(trust.Replayed):
        one.open(topic, payload)
    for durable_or_retained in (SAID[2], SAID[4]):
        one.open(*durable_or_retained)
        one.open(*durable_or_retained)
    after = kiosk(one.to_save()[0])
    for earlier in ((topic, payload), SAID[1]):
        with pytest.raises(trust.Replayed):
            after.open(*earlier)
    assert after.refused["Replayed"] == 2
    assert not after.strangers


def test_a_stranger_is_shown_once_he_insists():
    one = kiosk()
    for _ in range(3):
        assert not one.strangers
        with pytest.raises(trust.TrustError):
            one.open(TOPICS[0], b"\x02" + bytes(200))
    assert one.strangers
