"""This release and the one before speak with each other, kiosk or hub, see `tests.peer`."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from edge_agent.core import wire
from edge_agent.core.joining import IdentityReply
from tests import peer
from tests.peer import fields_of, plain, samples, wire_0_1

RECORDED = json.loads((Path(peer.__file__).parent / "messages_0_1.json").read_text())


def test_the_record_has_every_kind() -> None:
    assert {each["message"]["kind"] for each in RECORDED} == {body.__name__ for body in wire_0_1.BODIES.values()}
    assert len(RECORDED) == 2 * len(wire_0_1.BODIES)


@pytest.mark.parametrize("each", RECORDED, ids=lambda each: each["message"]["kind"])
def test_what_the_old_one_says_is_understood(each: dict) -> None:
    said, heard = each["message"], plain(wire.decode(bytes.fromhex(each["payload"])))
    assert {name: heard[name] for name in said if name != "body"} == {n: v for n, v in said.items() if n != "body"}
    assert {name: heard["body"][name] for name in said["body"]} == said["body"]


@pytest.mark.parametrize("message", samples(wire), ids=lambda each: type(each.body).__name__)
def test_what_this_one_says_the_old_one_understands(message: wire.Message) -> None:
    payload = wire.encode(message)
    if message.body.KIND not in wire_0_1.BODIES:
        with pytest.raises(wire_0_1.UnknownMessage):  # logged once, and ignored
            wire_0_1.decode(payload)
        return
    heard, said = fields_of(wire_0_1.decode(payload).body), fields_of(message.body)
    assert heard == {name: said[name] for name in heard}


@pytest.mark.parametrize("message", samples(wire), ids=lambda each: type(each.body).__name__)
def test_what_a_later_one_appends_this_one_passes_over(message: wire.Message) -> None:
    envelope = msgspec.msgpack.decode(wire.encode(message))
    envelope += [None] * (8 - len(envelope)) + ["of a later release"]
    envelope[6] = [*envelope[6], *_rest(message.body), "of a later release"]
    assert wire.decode(msgspec.msgpack.encode(envelope)) == message


def _rest(body: wire.Body) -> list[object]:
    sent = len(msgspec.msgpack.decode(msgspec.msgpack.encode(body)))
    return [getattr(body, name) for name in body.__struct_fields__[sent:]]


def test_an_old_hubs_answer_to_a_joining_kiosk_is_one() -> None:
    old = {
        "kiosk": "hill-7", "site": "Hill", "certificate": "c", "ca": "a", "signer": "s", "seal_key": "k", "host": "h",
        "port": 8883,
    }  # fmt: skip
    assert msgspec.json.decode(json.dumps(old), type=IdentityReply).release_keys is None
    assert msgspec.json.decode(json.dumps({**old, "later": 1}), type=IdentityReply).port == 8883
