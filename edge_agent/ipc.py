"""The protocol between the agent and its media process, over a Unix stream socket.

The agent listens, the media process connects; frames are a 4-byte big-endian length and a msgpack array, tagged by
type. Neither waits for the other: a full socket drops pictures (`FarPicture`, `OwnPicture`) and never control
messages. When the socket closes the media process ends.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.core.wire import IceServer

MAX_FRAME_BYTES = 4 * 1024 * 1024


@contextmanager
def short_path(socket: Path) -> Iterator[str]:
    """A way to a Unix socket, good for this process and this block, that fits unix(7)'s 108 bytes however deep its
    folder lies. Raises OSError where there is no such folder."""
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


class ProtocolError(ConnectionError):
    """The other process speaks something else; the connection is closed and the process restarted."""


class Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Root of what goes over a `Link`."""


# --- agent → media


class StartCall(Frame, frozen=True):
    """Make a peer connection and an offer. An older leg goes on until this one is connected.

    `held`: connect, but send silence and black and play nothing until `Unhold`."""

    call: bytes
    leg: int
    ice_servers: tuple[IceServer, ...]
    held: bool


class TakeAnswer(Frame, frozen=True):
    call: bytes
    leg: int
    sdp: bytes  # compressed, as on the wire


class Unhold(Frame, frozen=True):
    call: bytes


class Rest(Frame, frozen=True):
    """Keep this call's connections, send next to nothing on them, and play nothing, until `Unhold`."""

    call: bytes


class ProbeLive(Frame, frozen=True):
    """Ask the leg that is heard whether its path carries a call: at the least rate of one, or at this one's own.
    Answered with `LiveProbed`."""

    call: bytes
    in_full: bool


class StartTurn(Frame, frozen=True):
    """From the microphone in parts of `TurnSound` until `StopTurn`, or the longest that there may be."""

    id: str


class StopTurn(Frame, frozen=True):
    pass


class PlayTurn(Frame, frozen=True):
    """As `Play`, of Opus packets."""

    id: str
    packets: tuple[bytes, ...]


class StopCall(Frame, frozen=True):
    """All legs of all calls."""


class Play(Frame, frozen=True):
    """A prompt, tone or voice reply through the speaker, mixed over a call's sound at half its level. A newer
    `Play` replaces one under way. `loop` repeats it until `StopPlaying` (ringing)."""

    id: str
    path: str  # WAV, or what PyAV can decode
    loop: bool = False


class StopPlaying(Frame, frozen=True):
    pass


class StartRecording(Frame, frozen=True):
    """From the microphone to an Opus file (Ogg, mono, 16 kbit/s); ends by itself at `max_seconds`."""

    id: str
    path: str
    max_seconds: float


class StopRecording(Frame, frozen=True):
    pass


class TakePhoto(Frame, frozen=True):
    """A JPEG of the sharpest of the next few pictures, with its renditions (`media/renditions.py`) in files beside
    it."""

    id: str
    path: str


class ShowOwnPicture(Frame, frozen=True):
    """Send `OwnPicture`s (small JPEGs, ~8/s) while on: the preview while a photo is taken."""

    on: bool


class SendPicturesAs(Frame, frozen=True):
    """How the page can show the far picture: "vp8" encoded frames, or "jpeg"."""

    kind: str


class WantKeyFrame(Frame, frozen=True):
    """A page joined or its decoder failed: ask the far end for a key frame."""


# --- media → agent


class MediaReady(Frame, frozen=True):
    """First frame from the process. `missing` as in the wire's Status; also sent again when it changes."""

    missing: tuple[str, ...]
    details: tuple[str, ...]  # one line a missing device: what happened and what to try


class OfferMade(Frame, frozen=True):
    call: bytes
    leg: int
    sdp: bytes


class MediaConnected(Frame, frozen=True):
    call: bytes
    leg: int


class MediaStalled(Frame, frozen=True):
    """Connected, but nothing has arrived for 3 s."""

    call: bytes
    leg: int


class MediaFlowing(Frame, frozen=True):
    """Packets arrive again after a stall."""

    call: bytes
    leg: int


class MediaLost(Frame, frozen=True):
    """This leg is over (ICE or DTLS failed, or the far end closed it)."""

    call: bytes
    leg: int
    reason: str


class FirstHeard(Frame, frozen=True):
    """The first far sound went to the speaker after `Unhold`; for the benches."""

    call: bytes


class FirstSeen(Frame, frozen=True):
    """The first far picture after `Unhold` went to the page."""

    call: bytes


class FarPicture(Frame, frozen=True):
    kind: str  # "vp8" or "jpeg"
    key: bool
    time_ms: int  # of the RTP clock, from 0 at the first picture
    data: bytes
    still: bool = False  # the next one may come a minute later


class OwnPicture(Frame, frozen=True):
    data: bytes  # JPEG


class Played(Frame, frozen=True):
    """The end of a `Play`: whole, or replaced or stopped (`whole=False`), or it could not be read (`error`)."""

    id: str
    whole: bool
    error: str = ""


class Recorded(Frame, frozen=True):
    """The file is closed and complete (not yet fsynced). An empty recording has an `error`."""

    id: str
    path: str
    duration_ms: int
    error: str = ""


class RecordingLevel(Frame, frozen=True):
    """About 10 a second while recording, 0.0 to 1.0: the page shows that it hears."""

    id: str
    level: float
    elapsed_ms: int


class TurnSound(Frame, frozen=True):
    """Some of a turn under way; with `last` the rest of it, which may be nothing."""

    id: str
    packets: tuple[bytes, ...]
    last: bool


class LiveProbed(Frame, frozen=True):
    call: bytes
    fits: bool


class PhotoRendition(Frame, frozen=True):
    name: str  # as `wire.Manifest.rendition`
    mime: str
    path: str


class PhotoTaken(Frame, frozen=True):
    id: str
    path: str
    error: str = ""
    renditions: tuple[PhotoRendition, ...] = ()


class CallStats(Frame, frozen=True):
    """Once a second in a call: counts since its start."""

    call: bytes
    leg: int
    rtt_ms: float
    packets_received: int
    packets_lost: int
    pictures_received: int
    pictures_sent: int
    concealed_ms: int = 0  # of the far sound: made up because nothing came in time
    stretched_ms: int = 0  # left out or repeated to hold the delay
    red_recovered: int = 0  # frames
    fec_recovered: int = 0
    sound_late: int = 0  # packets that came after their time
    buffer_ms: float = 0.0  # now: how much later than the fastest packet the sound is played
    target_ms: float = 0.0  # what the playout aims at
    sent_bytes: int = 0  # of the whole leg, headers included
    received_bytes: int = 0
    sound_received: int = 0  # packets of the far voice
    sound_lost: int = 0
    lost_up: float | None = None  # share of the kiosk's voice, by the far end's newest report
    link_known: bool = False  # whether the rates are measured, or told by the configuration
    up_bps: int = 0  # what the link carries, headers included
    down_bps: int = 0
    queue_ms: float = 0.0  # of the kiosk's own, on the link
    pictures_up: str = "none"  # or "stills", "moving"
    pictures_down: str = "none"
    reason_up: str = ""  # why there is not more, as the allocator says
    reason_down: str = ""


ToMedia = (
    StartCall | TakeAnswer | Unhold | Rest | ProbeLive | StopCall | StartTurn | StopTurn | PlayTurn | Play | StopPlaying
    | StartRecording | StopRecording | TakePhoto | ShowOwnPicture | SendPicturesAs | WantKeyFrame
)  # fmt: skip
FromMedia = (
    MediaReady | OfferMade | MediaConnected | MediaStalled | MediaFlowing | MediaLost | FirstHeard | FirstSeen
    | FarPicture | OwnPicture | Played | Recorded | RecordingLevel | PhotoTaken | CallStats | TurnSound | LiveProbed
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_length = struct.Struct(">I")


class Link:
    """One end of a socket. `expects` are the frames that the other sends, such as `ToMedia` or `FromMedia`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        expects: Any,
        max_queued_bytes: int = 512 * 1024,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(expects)
        self._max_queued_bytes = max_queued_bytes
        self.dropped_pictures = 0

    def send(self, frame: Frame) -> None:
        """Queues at once; pictures are dropped while the other side does not read."""
        queued = self._writer.transport.get_write_buffer_size()
        if queued > self._max_queued_bytes and isinstance(frame, (FarPicture, OwnPicture)):
            self.dropped_pictures += 1
            return
        data = _encoder.encode(frame)
        self._writer.write(_length.pack(len(data)) + data)

    async def drained(self) -> None:
        """Waits while the other side reads more slowly than is sent. Raises ConnectionError."""
        await self._writer.drain()

    async def receive(self) -> Any:
        """The next frame, or None at the end of the stream; raises ProtocolError."""
        try:
            (length,) = _length.unpack(await self._reader.readexactly(_length.size))
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"frame of {length} bytes")
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if isinstance(error, ProtocolError):
                raise
            return None
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(str(error)) from None

    def close(self) -> None:
        self._writer.close()
