"""What one transaction leads to outside the database: gathered while it runs, carried out once it is committed.

Nothing here but ids and messages, so that the part of it that concerns consoles can be told to the hub's other
processes as it stands (`Notice`).
"""

from __future__ import annotations

import msgspec

from edge_agent.core import wire


class Notice(msgspec.Struct, array_like=True):
    """What has changed, by ids: each process reads the rest from the database for the consoles it holds."""

    room: bool = False  # calls, doctors, kiosks
    cases: tuple[str, ...] = ()  # consults whose card or contents changed
    calls: tuple[str, ...] = ()  # a call's phase: its doctor is told
    offers: tuple[str, ...] = ()  # a call has an offer its doctor has not answered
    media: tuple[str, ...] = ()  # the kiosk's media of a call changed
    turns: tuple[str, ...] = ()  # something was said, delivered or heard in a call that goes in turns


class Outgoing:
    def __init__(self) -> None:
        self.messages: list[tuple[str, wire.Message]] = []
        self.sealed: list[tuple[str, bytes]] = []  # topic and payload: `messages` and `receipts`, at the end
        self.receipts: dict[str, list[bytes]] = {}
        self.room = False
        self.cases: set[str] = set()
        self.calls: set[str] = set()
        self.offers: set[str] = set()
        self.media: set[str] = set()
        self.turns: set[str] = set()
        self.receipted: set[str] = set()  # our durable messages, just now
        self.greeted: set[str] = set()  # kiosks that came online: what they were told before may be forgotten

    def to_kiosk(self, kiosk: str, message: wire.Message) -> None:
        self.messages.append((kiosk, message))

    def receipt(self, kiosk: str, message_id: bytes) -> None:
        self.receipts.setdefault(kiosk, []).append(message_id)

    @property
    def notice(self) -> Notice:
        changed = (self.cases, self.calls, self.offers, self.media, self.turns)
        return Notice(self.room, *(tuple(sorted(ids)) for ids in changed))


NOTICE_TOPIC = "tc1h/n"
EMPTY_NOTICE = Notice()
_decoder = msgspec.msgpack.Decoder(Notice)


def encode_notice(notice: Notice) -> bytes:
    return msgspec.msgpack.encode(notice)


def decode_notice(payload: bytes) -> Notice:
    """Raises msgspec.DecodeError, nothing else."""
    try:
        return _decoder.decode(payload)
    except (UnicodeDecodeError, RecursionError) as error:  # which msgspec lets through
        raise msgspec.DecodeError(str(error)) from None
