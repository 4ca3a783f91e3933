"""Files on the card, each encrypted with a random key of its own that the database keeps.

    MAGIC ‖ frame 0 ‖ frame 1 ‖ …    frame = ChaCha20-Poly1305 (RFC 8439) of 64 KiB of the file, the last one shorter

A frame's nonce is its number and whether it is the last, so frames cannot be moved or cut off (STREAM, by Hoang,
Reyhanitabar, Rogaway and Vizár, 2015); the file's digest is bound to each. Any range is read by decrypting the frames
it touches. A file is complete on the disk before it has its name.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from edge_agent.private_files import sync_folder

MAGIC = b"TCF1"
FRAME_BYTES = 64 * 1024
TAG_BYTES = 16


def new_key() -> bytes:
    return ChaCha20Poly1305.generate_key()


def write_sealed(path: Path, plain: BinaryIO, size: int, key: bytes, digest: bytes) -> None:
    """On the disk when it returns, with its folder's entry. Raises OSError, leaving nothing."""
    part = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(MAGIC)
            for frame in _seal(plain, size, key, digest):
                file.write(frame)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_sealed(path: Path, size: int, key: bytes, digest: bytes, start: int, end: int) -> bytes:
    """Bytes `start` to `end`. Raises OSError where they are not there, or damaged."""
    if not 0 <= start <= end <= size:
        raise OSError(errno.EIO, f"the file ends at {size}, {start} to {end} was asked for")
    cipher, last = ChaCha20Poly1305(key), _last_frame(size)
    first, final = start // FRAME_BYTES, max(start, end - 1) // FRAME_BYTES
    plain = bytearray()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise OSError(errno.EIO, "a file is damaged at its beginning")
        file.seek(len(MAGIC) + first * (FRAME_BYTES + TAG_BYTES))
        for number in range(first, min(final, last) + 1):
            sealed = file.read(FRAME_BYTES + TAG_BYTES)
            try:
                plain += cipher.decrypt(_nonce(number, number == last), sealed, digest)
            except InvalidTag:
                raise OSError(errno.EIO, f"a file is damaged in frame {number}") from None
    skipped = start - first * FRAME_BYTES
    return bytes(plain[skipped : skipped + end - start])


def _seal(plain: BinaryIO, size: int, key: bytes, digest: bytes) -> Iterator[bytes]:
    cipher, last = ChaCha20Poly1305(key), _last_frame(size)
    for number in range(last + 1):
        yield cipher.encrypt(_nonce(number, number == last), plain.read(FRAME_BYTES), digest)


def _last_frame(size: int) -> int:
    return max(0, size - 1) // FRAME_BYTES


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))
