"""Where a release comes from: a folder that somebody brings, or the hub.

From the hub each file comes as xz, in chunks that are asked for by their place, so that a broken line costs one chunk
and a call that begins waits for one. `gate` is asked before each and told afterwards what it cost.
"""

from __future__ import annotations

import lzma
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from edge_agent.core.csr import sign_release_question
from edge_agent.core.joining import HUB_NAME
from edge_agent.core.release import (
    MANIFEST,
    MAX_FILE_BYTES,
    SIGNATURE,
    Content,
    Keys,
    Machine,
    Manifest,
    ReleaseError,
    ReleaseReply,
    ReleaseRequest,
    SignedManifest,
    check_fits,
    follow,
    verify,
    version_key,
)
from edge_agent.core.updating import FIRST_CHUNK_BYTES, next_chunk
from edge_agent.identity import Identity
from edge_agent.join import is_loopback
from edge_agent.tls import HubTls
from edge_agent.update.installed import Installed

TIMEOUT_S = 60.0  # a chunk at 18 kbit/s takes 2, behind other traffic a multiple
HEADERS_BYTES = 700  # of question, answer, TLS and TCP, both ways, for a chunk
QUESTION_BYTES = 6_000  # with a TLS handshake
MAX_REPLY_BYTES = 8 * 1024 * 1024


class Offered(NamedTuple):
    manifest: Manifest
    signed: SignedManifest
    keys: Keys  # that hold from now on


class Gate(Protocol):
    def may_go(self) -> bool: ...

    def spent(self, size_bytes: int) -> None: ...


class Source(Protocol):
    by_hand: bool

    def look(self, keys: Keys, version: str) -> Offered | None:
        """What is newer than `version`. Raises ReleaseError, OSError."""

    def fetch(self, files: Mapping[str, Content], installed: Installed, gate: Gate) -> bool:
        """False where the gate is shut before all are there. Raises ReleaseError, OSError."""


class Folder:
    by_hand = True

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder, self._machine = folder, machine

    def look(self, keys: Keys, version: str) -> Offered | None:
        signed = SignedManifest(self._read(MANIFEST), self._read(SIGNATURE))
        manifest, keys = verify(signed.manifest, signed.signature, keys)
        check_fits(manifest, self._machine)
        if version and version_key(manifest.version) < version_key(version):
            raise ReleaseError(
                f"release {manifest.version} is older than what runs here, {version}; it is not installed"
            )
        return Offered(manifest, signed, keys) if manifest.version != version else None

    def fetch(self, files: Mapping[str, Content], installed: Installed, gate: Gate) -> bool:
        for path, content in files.items():
            try:
                installed.take(path, content, self._read(path))
            except ReleaseError as error:
                raise ReleaseError(f"{self._folder}: {error}; copy the release again") from None
        return True

    def _read(self, name: str) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise ReleaseError(f"{self._folder} has no {name}, so it is no release, or not all of one") from None


class HubSource:
    by_hand = False

    def __init__(
        self, identity: Identity, origin: str, machine: Machine, dates_ms: Callable[[], int | None],
        said: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self._identity, self._origin, self._machine, self._said = identity, origin, machine, said
        plain = origin.startswith("http:") and is_loopback(urlsplit(origin).hostname or "")
        verified = True if plain else HubTls.trusting(identity.cas, dates_ms)
        self._http = httpx.Client(verify=verified, timeout=TIMEOUT_S, trust_env=False)
        self._http.headers = httpx.Headers({"accept-encoding": "identity"})  # each chunk has them: no more than needed

    def look(self, keys: Keys, version: str) -> Offered | None:
        asked = ReleaseRequest(
            self._identity.certificate_pem,
            sign_release_question(self._identity.certificate, self._identity.signing_key).hex(),
            version, keys.signing,
        )  # fmt: skip
        answer = self._ask("POST", "/release", content=msgspec.json.encode(asked))
        if answer.status_code != 200 or len(answer.content) > MAX_REPLY_BYTES:
            raise ReleaseError(f"the hub does not say what this kiosk should run (it answered {answer.status_code})")
        try:
            reply = msgspec.json.decode(answer.content, type=ReleaseReply)
        except msgspec.DecodeError as error:
            raise ReleaseError(f"the hub answers what this release cannot read ({error})") from None
        if not reply.chain:
            return None
        manifest, keys = follow(reply.chain, keys)
        check_fits(manifest, self._machine)
        if version and version_key(manifest.version) <= version_key(version):
            raise ReleaseError(f"the hub offers release {manifest.version}, which is no newer than {version}")
        return Offered(manifest, reply.chain[-1], keys)

    def fetch(self, files: Mapping[str, Content], installed: Installed, gate: Gate) -> bool:
        size = FIRST_CHUNK_BYTES
        for number, (path, content) in enumerate(sorted(files.items(), key=lambda each: each[1].size), 1):
            part = installed.incoming / f"{content.sha256}.xz"
            done = False
            while not done:
                if not gate.may_go():
                    return False
                began = time.monotonic()
                cost, done = self._chunk(content.sha256, part, size)
                gate.spent(cost)
                size = next_chunk(size, time.monotonic() - began)
            try:
                installed.take(path, content, _unpacked(part, content.size))
            finally:
                part.unlink()  # where it is not right, all of it comes anew
            if number % 50 == 0 or number == len(files):
                self._said(f"{number} of {len(files)} files are here")
        return True

    def _chunk(self, digest: str, part: Path, size: int) -> tuple[int, bool]:
        """`(bytes on the wire, whether it was the last)`."""
        start = part.stat().st_size if part.exists() else 0
        answer = self._ask("GET", f"/release/files/{digest}", headers={"range": f"bytes={start}-{start + size - 1}"})
        whole = answer.headers.get("content-range", "").rpartition("/")[2]
        if answer.status_code == 416:
            part.unlink(missing_ok=True)
        if answer.status_code != 206 or not whole.isdigit() or len(answer.content) > size:
            raise ReleaseError(
                f"the hub has not all of this release (it answered {answer.status_code}); add the release there anew"
            )
        with part.open("ab") as out:
            out.write(answer.content)
            out.flush()
            os.fsync(out.fileno())
        return len(answer.content) + HEADERS_BYTES, start + len(answer.content) >= int(whole)

    def _ask(self, method: str, path: str, **more: object) -> httpx.Response:
        try:
            return self._http.request(  # type: ignore[arg-type]
                method, self._origin + path, extensions={"sni_hostname": HUB_NAME}, **more
            )
        except httpx.HTTPError as error:
            raise ReleaseError(
                f"the hub at {urlsplit(self._origin).netloc} is not reached ({error}); it goes on later"
            ) from None


def _unpacked(part: Path, size: int) -> bytes:
    """Raises ReleaseError. No more than it should be, whatever it says of itself."""
    try:
        data = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=128 * 1024 * 1024).decompress(part.read_bytes(), size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ReleaseError(f"what came from the hub cannot be unpacked ({error}); it comes anew") from None
    return data
