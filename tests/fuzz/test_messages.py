"""Whatever comes in, only the declared errors come out: the wire, the console's and the screen's messages, the media
process's socket. A few seconds here; `scripts/fuzz` goes on for longer.

What comes in is noise, and genuine messages with bytes changed, cut out, doubled and put elsewhere: noise alone ends at
the first check.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import typing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from edge_agent import ipc
from edge_agent.core import joining, sdp, wire
from hub import console, outgoing
from kiosk import screen
from tests.unit.test_sdp import CHROMIUM_ANSWER, FIREFOX_ANSWER

# --- genuine messages of every kind, made from their types

SESSIONS = (CHROMIUM_ANSWER, FIREFOX_ANSWER)
_IDS = {"call": 8, "advice": 8, "digest": 32}
_TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["", "\0", "é" * 20, "‮", "14:30"]))
_NUMBERS = st.one_of(st.integers(0, 100), st.sampled_from([0, -1, 2**31, 2**53, 2**63 - 1, 2**64 - 1]))


def values(kind: Any, name: str = "") -> SearchStrategy[Any]:
    """For one field of a message."""
    if typing.get_origin(kind) in (tuple, list):
        inner = [each for each in typing.get_args(kind) if each is not Ellipsis]
        if len(inner) > 1:
            return st.tuples(*(values(each) for each in inner))
        return st.lists(values(inner[0], name), max_size=3).map(tuple)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if args := typing.get_args(kind):
        return st.one_of([values(each, name) for each in args if each is not type(None)] + [st.none()])
    if kind is bytes:
        length = _IDS.get(name)
        return st.binary(min_size=length, max_size=length) if length else st.binary(max_size=64)
    simple = {str: _TEXTS, int: _NUMBERS, bool: st.booleans(), float: st.floats(0, 1e9)}
    return simple[kind] if kind in simple else structs(kind)


def structs(kind: type) -> SearchStrategy[Any]:
    types = typing.get_type_hints(kind)
    return st.builds(kind, **{name: values(types[name], name) for name in kind.__struct_fields__})


MESSAGES = st.builds(
    wire.Message,
    st.one_of([structs(body) for body in wire.BODIES.values()]),
    st.sampled_from([b"", bytes(16), bytes(range(16))]),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**53 - 1),
)
OF_THE_CONSOLE = st.one_of([structs(each) for each in typing.get_args(console.FromConsole)])
OF_THE_SCREEN = st.builds(screen.Action, do=st.sampled_from(sorted(screen.ACTIONS)), value=_TEXTS)
TO_MEDIA = st.one_of([structs(each) for each in typing.get_args(ipc.ToMedia)])
FROM_MEDIA = st.one_of([structs(each) for each in typing.get_args(ipc.FromMedia)])


@st.composite
def spoilt(draw: st.DrawFn, genuine: SearchStrategy[bytes]) -> bytes:
    """One of `genuine` with up to five things done to it."""
    data = draw(genuine)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        piece = draw(st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(_SPOILERS)))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:at] + piece + data[at + len(piece) :]
            case 1:
                data = data[:at] + piece + data[at:]
            case 2:
                data = data[:at] + data[at + draw(st.integers(1, 8)) :]
            case 3:
                data = data[: at + 8] + data[at:]
            case 4:
                data = data[:at]
    return data


_SPOILERS = [
    b"\xc1", b"\xff", b"\x80", b"\xa4\xff\xfe\xfd\xfc", b"\xc4\xff", b"\xdd\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8,
    b"\xcb\x7f\xf0" + bytes(6), b"\x91" * 200, b"[" * 200, b'{"', b"null", b"1e999", b'"\\ud800"',
    b"\xef\xbb\xbf", b"\0",
]  # fmt: skip


def anything(genuine: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=200), genuine, spoilt(genuine), spoilt(genuine))


def as_json(message: Any) -> bytes:
    """Also numbers that JSON alone can write."""
    return msgspec.json.encode(message)


def only(error: type[Exception], function: Callable[[Any], Any], data: Any) -> Any:
    """The answer, or None where it raised what it may raise. Anything else goes up, and is the finding."""
    with contextlib.suppress(error):
        return function(data)
    return None


# --- the wire


def encoded(message: wire.Message) -> bytes:
    return wire.encode(message)


@given(MESSAGES)
def test_a_genuine_message_comes_back_or_is_malformed(message: wire.Message):
    back = only(wire.MalformedMessage, wire.decode, encoded(message))
    assert back in (None, message)


@given(anything(MESSAGES.map(encoded)))
@example(b"")
@example(bytes(wire.MAX_MESSAGE_BYTES + 1))
@example(b"\x97\x01\x02" + b"\x91" * 100_000)
def test_the_wire(payload: bytes):
    message = only(wire.WireError, wire.decode, payload)
    if message is not None:
        assert wire.decode(wire.encode(message)) == message, "what was understood can be said again"


@given(st.one_of(st.text(max_size=80), st.from_regex(r"tc1/[a-z0-9/#+-]{0,40}/u/.", fullmatch=True)))
def test_topics(topic: str):
    parsed = only(wire.MalformedMessage, wire.parse_up_topic, topic)
    if parsed is not None:
        assert wire.is_kiosk_id(parsed[0])
        assert not set(parsed[0]) & set("/+#$_")


@given(anything(st.sampled_from(SESSIONS).map(sdp.compress)))
def test_compressed_session_descriptions(data: bytes):
    text = only(sdp.SdpError, sdp.decompress, data)
    if text is not None:
        assert sdp.decompress(sdp.compress(text)) == text


@given(spoilt(st.sampled_from(SESSIONS).map(str.encode)))
def test_session_descriptions_of_a_browser(data: bytes):
    only(sdp.SdpError, sdp.compress, data.decode(errors="replace"))


@given(anything(st.just(outgoing.encode_notice(outgoing.Notice(True, ("a",), ("b",), ("c",), ("d",))))))
def test_what_hub_processes_tell_each_other(data: bytes):
    only(msgspec.DecodeError, outgoing.decode_notice, data)


@given(
    st.one_of(st.text(max_size=80), st.from_regex(r"([0-9A-HJKMNP-TV-Z]{5}-){7}[0-9A-HJKMNP-TV-Z]{5}", fullmatch=True))
)
def test_join_codes(text: str):
    code = only(joining.CodeError, joining.parse_code, text)
    if code is not None:
        assert joining.parse_code(joining.encode_code(code)) == code


# --- the pages


@given(anything(OF_THE_CONSOLE.map(as_json)))
@example(b"x" * (console.MAX_CLIENT_BYTES + 1))
@example(b"[" * 60_000)
def test_messages_of_the_console(data: bytes):
    for form in (data, data.decode(errors="surrogateescape")):
        request = only(console.BadRequest, console.parse, form)
        if request is not None:
            assert isinstance(request, typing.get_args(console.FromConsole))
            json.dumps(msgspec.to_builtins(request)).encode()  # no half character that a log or database chokes on


@given(anything(OF_THE_SCREEN.map(as_json)))
@example(b"x" * (screen.MAX_ACTION_BYTES + 1))
@example(b"[" * 16_000)
def test_actions_of_the_screen(data: bytes):
    for form in (data, data.decode(errors="surrogateescape")):
        action = only(screen.BadAction, screen.parse_action, form)
        if action is not None:
            assert action.do in screen.ACTIONS
            action.value.encode()


# --- the media process's socket


class _NoWriter:
    """A link that only reads."""

    def close(self) -> None:
        pass


def read_all(data: bytes, expects: Any) -> list[Any]:
    """Every frame up to the end of the stream or the ProtocolError."""

    async def read() -> list[Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        link, frames = ipc.Link(reader, _NoWriter(), expects), []  # type: ignore[arg-type]
        while (frame := await link.receive()) is not None:
            frames.append(frame)
        return frames

    return asyncio.run(read())


def framed(*frames: Any) -> bytes:
    encoded = [msgspec.msgpack.encode(frame) for frame in frames]
    return b"".join(len(each).to_bytes(4, "big") + each for each in encoded)


@pytest.mark.parametrize(
    ("expects", "genuine"), [(ipc.ToMedia, TO_MEDIA), (ipc.FromMedia, FROM_MEDIA)], ids=["to", "from"]
)
def test_media_frames(expects: Any, genuine: SearchStrategy[Any]):
    streams = st.lists(genuine, min_size=1, max_size=3)

    @given(streams)
    def whole(frames: list[Any]) -> None:
        assume(all(frame == frame for frame in frames))
        assert read_all(framed(*frames), expects) == frames

    @given(anything(streams.map(lambda frames: framed(*frames))))
    @example((ipc.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    @example(framed(b"")[:3])
    def any_bytes(data: bytes) -> None:
        only(ipc.ProtocolError, lambda data: read_all(data, expects), data)

    @given(spoilt(genuine.map(msgspec.msgpack.encode)))
    @example(b"\x92\xa3xyz\xc0")
    def any_frame(data: bytes) -> None:
        only(ipc.ProtocolError, lambda data: read_all(len(data).to_bytes(4, "big") + data, expects), data)

    whole()
    any_bytes()
    any_frame()
