"""What a courier's stick holds: bundles of messages as they would have gone over the link, signed and sealed.

Pure. A bundle is a magic line, records, and at its end the SHA-256 of all before: cut off anywhere it is known as not
whole, and its reader leaves it alone. A record is a length and a msgpack array `[topic, payload]`. Nothing in it can be
read or forged by whoever finds the stick: the payloads are those of `edge_agent.core.trust`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from edge_agent.core.wire import MAX_MESSAGE_BYTES

MAGIC = b"teleconsult courier 1\n"
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES + 256
_END = 0
_length = struct.Struct(">I")
_READ_BYTES = 1024 * 1024


class Sealed(msgspec.Struct, array_like=True, frozen=True):
    """A message for the broker."""

    topic: str
    payload: bytes


class NotWhole(ValueError):
    """A bundle that was cut off or altered, or a file that is none."""


_decoder = msgspec.msgpack.Decoder(Sealed)


def written(records: Iterable[Sealed]) -> Iterator[bytes]:
    """The pieces of a bundle, in order."""
    digest = hashlib.sha256()
    for piece in _pieces(records):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _pieces(records: Iterable[Sealed]) -> Iterator[bytes]:
    yield MAGIC
    for record in records:
        yield frame(record)
    yield _length.pack(_END)


def frame(record: Sealed) -> bytes:
    data = msgspec.msgpack.encode(record)
    return _length.pack(len(data)) + data


def check(file: IO[bytes]) -> None:
    """Reads all of it. Raises NotWhole."""
    digest, last = hashlib.sha256(), b""
    if file.read(len(MAGIC)) != MAGIC:
        raise NotWhole("not a courier's bundle")
    digest.update(MAGIC)
    while piece := file.read(_READ_BYTES):
        joined = last + piece
        digest.update(joined[:-32])
        last = joined[-32:]
    if digest.digest() != last:
        raise NotWhole("cut off or altered")


def records(file: IO[bytes]) -> Iterator[Sealed]:
    """Of a bundle that `check` found whole, from its beginning. Raises NotWhole."""
    if file.read(len(MAGIC)) != MAGIC:
        raise NotWhole("not a courier's bundle")
    while True:
        head = file.read(_length.size)
        if len(head) != _length.size:
            raise NotWhole("cut off")
        (length,) = _length.unpack(head)
        if length == _END:
            return
        if length > MAX_RECORD_BYTES:
            raise NotWhole(f"a record of {length} bytes")
        try:
            yield _decoder.decode(file.read(length))
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise NotWhole(str(error)) from None
