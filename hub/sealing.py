"""The hub's end of `edge_agent.core.trust`: what a kiosk says is opened and judged here, what it is told is signed and
sealed here, both in the transaction that it belongs to.

A message is believed where the key that its topic's kiosk has now signed it: a kiosk that was revoked, or replaced by
other hardware, or whose certificate has run out, says nothing any more and is told nothing. The counters of what says
how things stand are in the database, so that neither a restart nor another process takes one again. The hub's own go
up from its clock and from what is kept there ahead of use; each process has its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core import trust, wire
from hub.outgoing import Outgoing
from hub.records import CaseFile, Certificate, Heard, HubProcess, Kiosk, WentBack

RECEIPTS_A_MESSAGE = 100
BUILT_MS = 1_790_000_000_000  # September 2026: a clock that says less is not set, and judges nobody
_GONE = -1  # for `Heard.kind`: the kiosk's last words, see `_check_status`
_KEYS = "kiosk keys"  # in `Session.info`, for one transaction


NOBODY = "no kiosk that has joined, or one whose certificate was revoked or has run out"


class Opened(NamedTuple):
    kiosk: str
    message: wire.Message
    counter: int


class KnownStatus(trust.Replayed):
    """Retained, and read again; no fault of anybody's."""


class Sealing:
    """All that takes a session runs in the database's thread, all else on the event loop."""

    def __init__(self, own: trust.OwnKeys, process: str) -> None:
        self._own, self._process = own, process
        self._counter, self._status_counter = trust.Counter(), trust.Counter()
        self._epoch, self._lost_since_ms = b"", 0

    # --- from kiosks

    def open(self, session: Session, topic: str, payload: bytes, now_ms: int) -> Opened:
        """Of all channels but that of chunks (`hub.arriving`). Changes nothing. Raises TrustError or WireError."""
        kiosk, channel = wire.parse_up_topic(topic)
        if len(payload) > wire.MAX_MESSAGE_BYTES:
            raise wire.MalformedMessage(f"{len(payload)} bytes, at most {wire.MAX_MESSAGE_BYTES} are taken")
        keys = keys_of(session, kiosk, now_ms)
        if keys is None:
            raise trust.Forged(NOBODY)
        said = trust.unwrap(
            payload, topic, keys.signing, self._own.sealing, wall_ms=now_ms if now_ms > BUILT_MS else None,
            allow_open=channel == "s",
        )  # fmt: skip
        message = wire.decode(said.message)
        body = message.body
        if channel != body.CHANNEL or isinstance(body, wire.Chunk):
            raise wire.MalformedMessage(f"kind {body.KIND} on channel {channel}")
        if payload[0] == trust.OPEN and not isinstance(body, wire.Status):
            raise trust.Forged("open, where only a status may be")
        return Opened(kiosk, message, said.counter)

    def admit(self, session: Session, opened: Opened) -> None:
        """By its counter, where it has to be newer than what was heard. Raises Replayed, having changed nothing."""
        body = opened.message.body
        if isinstance(body, wire.Status):
            _check_status(session, opened.kiosk, body.online, opened.counter)
        elif not body.DURABLE:
            _check_counter(session, opened.kiosk, body.KIND, opened.counter)

    # --- to kiosks

    def seal(self, session: Session, out: Outgoing, now_ms: int) -> None:
        """All of `out` that is for kiosks, ready to be published. At the transaction's end."""
        for kiosk, ids in out.receipts.items():
            for start in range(0, len(ids), RECEIPTS_A_MESSAGE):
                receipt = wire.Receipt(tuple(ids[start : start + RECEIPTS_A_MESSAGE]))
                out.messages.append((kiosk, wire.Message(receipt, sent_at_ms=now_ms)))
        out.receipts.clear()
        learn_keys(session, {kiosk for kiosk, _ in out.messages}, now_ms)
        for kiosk, message in out.messages:
            keys = keys_of(session, kiosk, now_ms)
            if keys is not None:
                topic = wire.down_topic(kiosk, message.body.CHANNEL)
                out.sealed.append((topic, self._seal(session, keys, topic, message, now_ms)))
        out.messages.clear()

    def _seal(
        self, session: Session, keys: trust.FarKeys, topic: str, message: wire.Message, now_ms: int
    ) -> bytes:  # fmt: skip
        body = message.body
        if isinstance(body, wire.Chunk):
            file = session.get_one(CaseFile, (message.consult.hex(), body.digest.hex()))
            return trust.wrap_chunk(wire.encode_chunk(body), topic, file.key)
        encoded = wire.encode(message)
        lasts = body.DURABLE or isinstance(body, wire.TimeTold)
        return trust.wrap(
            encoded, topic, self._own.signing, keys.sealing, counter=self._counter.next(now_ms),
            expires_at_ms=0 if lasts else now_ms + trust.SIGNALLING_LIFE_MS, sender=self._process,
        )  # fmt: skip

    def status(self, status: wire.HubStatus) -> bytes:
        """Signed and open: kiosks that have just joined, or know no time, must read it."""
        status = msgspec.structs.replace(status, epoch=self._epoch, lost_since_ms=self._lost_since_ms)
        now_ms = int(time.time() * 1000)
        message = wire.Message(status, sent_at_ms=now_ms)
        topic, counter = wire.hub_topic(self._process), self._status_counter.next(now_ms)
        return trust.wrap(wire.encode(message), topic, self._own.signing, None, counter=counter)

    # --- the hub's own counter

    def keep_counter(self, session: Session, now_ms: int) -> int:
        """At the start and from time to time; `counter_kept` with the answer once it is committed."""
        row = session.get(HubProcess, self._process)
        if row is None:
            row = HubProcess(process=self._process, counter=0)
            session.add(row)
        counters = (self._counter, self._status_counter)
        row.counter = max(row.counter, *(counter.floor_to_keep(now_ms) for counter in counters))
        return row.counter

    def start(self, session: Session, now_ms: int) -> int:
        row = session.get(HubProcess, self._process)
        floor = row.counter if row is not None else 0
        back = session.get(WentBack, 1)
        self._epoch, self._lost_since_ms = (bytes.fromhex(back.epoch), back.since) if back is not None else (b"", 0)
        self._counter, self._status_counter = trust.Counter(floor), trust.Counter(floor)
        return self.keep_counter(session, now_ms)

    def counter_kept(self, floor: int) -> None:
        self._counter.kept(floor)
        self._status_counter.kept(floor)


def ask_again(session: Session, since_ms: int) -> None:
    """Once the hub starts anew, kiosks send what they had receipts for since then once more."""
    session.merge(WentBack(id=1, epoch=secrets.token_hex(wire.MESSAGE_ID_BYTES), since=since_ms))


def learn_keys(session: Session, kiosks: Iterable[str], now_ms: int) -> None:
    """Of all of them in one look, for `keys_of` in this transaction."""
    known: dict[str, trust.FarKeys | None] = session.info.setdefault(_KEYS, {})
    wanted = set(kiosks) - known.keys()
    if not wanted:
        return
    known.update(dict.fromkeys(wanted))
    certified = session.execute(
        select(Kiosk.id, Kiosk.sign_key, Kiosk.seal_key, Certificate.key_hash)
        .join(Certificate, Certificate.kiosk_id == Kiosk.id)
        .where(
            Kiosk.id.in_(wanted),
            Certificate.revoked_at == 0,
            Certificate.expires_at > (now_ms if now_ms > BUILT_MS else 0),
        )
    )
    for kiosk, sign_key, seal_key, key_hash in certified.tuples():
        if sha256(sign_key).hexdigest() == key_hash:
            known[kiosk] = _far_keys(sign_key, seal_key)


def keys_of(session: Session, kiosk: str, now_ms: int) -> trust.FarKeys | None:
    """Its keys of today, None where no certificate vouches for them."""
    known: dict[str, trust.FarKeys | None] = session.info.get(_KEYS, {})
    if kiosk not in known:
        learn_keys(session, (kiosk,), now_ms)
        known = session.info[_KEYS]
    return known[kiosk]


@lru_cache(maxsize=10_000)
def _far_keys(sign_key: bytes, seal_key: bytes) -> trust.FarKeys:
    signing = serialization.load_der_public_key(sign_key)
    assert isinstance(signing, ec.EllipticCurvePublicKey)  # noqa: S101 -- enrolment has seen to it
    return trust.FarKeys(signing, X25519PublicKey.from_public_bytes(seal_key))


def _check_counter(session: Session, kiosk: str, kind: int, counter: int) -> None:
    """For each kind alone: two hub processes may take what was said in one breath in either order. Raises Replayed."""
    heard = session.get(Heard, (kiosk, kind))
    if heard is None:
        session.add(Heard(kiosk_id=kiosk, kind=kind, counter=counter))
    elif counter <= heard.counter:
        raise trust.Replayed(f"counter {counter} after {heard.counter}")
    else:
        heard.counter = counter


def _check_status(session: Session, kiosk: str, online: bool, counter: int) -> None:
    """A kiosk's last words (`online` false) lie with the broker from the beginning of its connection, so they count
    apart: whoever holds them can do no more with them than by cutting the connection. Raises Replayed."""
    last, gone = (session.get(Heard, (kiosk, kind)) for kind in (wire.Status.KIND, _GONE))
    known = last if online else gone
    if known is not None and counter == known.counter:
        raise KnownStatus("read again")
    if online and gone is not None and counter < gone.counter:
        raise trust.Replayed(f"counter {counter} after {gone.counter}")
    _check_counter(session, kiosk, wire.Status.KIND if online else _GONE, counter)
