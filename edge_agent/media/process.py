"""The media process: calls, prompts, recordings and photos, told what to do by the agent over a Unix socket.

It keeps nothing: killed at any instant, a new one takes over with the next `StartCall`. It ends when the socket does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent import ipc
from edge_agent.config import KioskSettings
from edge_agent.core.voice import LinkMemory
from edge_agent.media.capture import Capture
from edge_agent.media.echo import EchoPath
from edge_agent.media.pictures import EncodedPicture
from edge_agent.media.recorder import Recorder
from edge_agent.media.speaker import Prompt, SpeakerMixer
from edge_agent.media.stills import FarPictureDecoder, Photographer, Preview, in_stages, write_renditions
from edge_agent.media.turn_recorder import TurnRecorder
from hardware import devices
from hardware.api import Picture

if TYPE_CHECKING:
    from edge_agent.media.peer import Leg

log = logging.getLogger(__name__)

READY_WAIT_S = 1.0  # a device that takes longer to open is reported when it has
PR_SET_PDEATHSIG = 1
VOICE_NICENESS = -10
TRACES_KEPT = 30  # some tens of kilobytes each

Block = NDArray[np.int16]


def run(socket_path: Path, settings: KioskSettings) -> int:
    """Until the agent closes the socket, or dies. Returns the exit code."""
    _die_with_parent()
    _put_voice_first()
    for library in ("aioice", "aiortc"):  # they log every check, with addresses
        logging.getLogger(library).setLevel(logging.WARNING)
    return asyncio.run(_run(socket_path, settings))


async def _run(socket_path: Path, settings: KioskSettings) -> int:
    try:
        with ipc.short_path(socket_path) as short:
            reader, writer = await asyncio.open_unix_connection(short)
    except OSError as error:
        log.error("no agent at %s (%s): media is started by the agent, not by hand", socket_path, error.strerror)
        return 1
    link = ipc.Link(reader, writer, ipc.ToMedia)
    media = MediaProcess(link, settings)
    try:
        await media.start()
        while (frame := await link.receive()) is not None:
            await media.handle(frame)
    except ipc.ProtocolError as error:
        log.error("the agent speaks something else (%s): are agent and media of one version?", error)
        return 1
    finally:
        await media.close()
        link.close()
    log.info("the agent closed the socket, media ends")
    return 0


class MediaProcess:
    """Wires devices, legs and files to the socket; everything it does is one of the `ToMedia` frames."""

    def __init__(self, link: ipc.Link, settings: KioskSettings) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._ready = False
        self._legs: dict[int, Leg] = {}
        self._call = b""
        self._active: Leg | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._recorder: Recorder | None = None
        self._turn: TurnRecorder | None = None
        self._preview: Preview | None = None
        self._as_jpeg: FarPictureDecoder | None = None
        self._link_memory = LinkMemory(settings.link.up_kbps * 1000.0 or None, settings.link.down_kbps * 1000.0 or None)
        self._traces = settings.state_dir / "traces"
        wanted = settings.devices
        echo = EchoPath(settings.sound.echo)
        self._camera: Capture[Picture] = Capture(
            "camera",
            lambda: devices.open_camera(
                wanted.camera, wanted.camera_width, wanted.camera_height, wanted.camera_rate
            ),
            self._device_changed,
            present=wanted.camera != "none",
        )  # fmt: skip
        self._microphone: Capture[Block] = Capture(
            "microphone",
            lambda: echo.microphone(devices.open_microphone(wanted.microphone)),
            self._device_changed,
            present=wanted.microphone != "none",
        )
        self._speaker = SpeakerMixer(
            lambda: echo.speaker(devices.open_speaker(wanted.speaker)),
            self._device_changed,
            present=wanted.speaker != "none",
            stays_open=wanted.speaker.startswith("wav:"),  # a file would begin anew
        )

    async def start(self) -> None:
        """Says what is missing, then loads what a call needs."""
        states = [self._camera.state, self._microphone.state, self._speaker.state]
        waits = [asyncio.to_thread(state.known.wait, READY_WAIT_S) for state in states]
        await asyncio.gather(*waits)
        self._ready = True
        self._send_ready()
        self._start(asyncio.to_thread(_load_calls))

    async def close(self) -> None:
        await self._stop_call()
        if self._recorder is not None:
            self._recorder.stop()
        if self._turn is not None:
            self._turn.stop()
        if self._as_jpeg is not None:
            self._as_jpeg.close()
        closers = (self._camera.close, self._microphone.close, self._speaker.close)
        await asyncio.gather(*(asyncio.to_thread(close) for close in closers))

    async def handle(self, frame: ipc.ToMedia) -> None:
        """One thing that cannot be done is logged and leaves all others alone."""
        try:
            match frame:
                case ipc.StartCall():
                    await self._start_call(frame)
                case ipc.TakeAnswer(call, leg, sdp):
                    await self._take_answer(call, leg, sdp)
                case ipc.Unhold(call):
                    for each in self._legs.values():
                        if each.call == call:
                            each.unhold()
                case ipc.Rest(call):
                    for each in self._legs.values():
                        if each.call == call:
                            each.rest()
                case ipc.ProbeLive(call, in_full):
                    self._start(self._probe(call, in_full))
                case ipc.StartTurn(id):
                    self._start_turn(id)
                case ipc.StopTurn():
                    if self._turn is not None:
                        self._turn.stop()
                case ipc.PlayTurn(id, packets):
                    self._play(id, packets)
                case ipc.StopCall():
                    await self._stop_call()
                case ipc.Play(id, path, loop):
                    self._play(id, path, loop)
                case ipc.StopPlaying():
                    self._speaker.stop_playing()
                case ipc.StartRecording():
                    self._start_recording(frame)
                case ipc.StopRecording():
                    if self._recorder is not None:
                        self._recorder.stop()
                case ipc.TakePhoto():
                    self._take_photo(frame)
                case ipc.ShowOwnPicture(on):
                    self._show_own_picture(on)
                case ipc.SendPicturesAs(kind):
                    self._send_pictures_as(kind)
                case ipc.WantKeyFrame():
                    if self._active is not None:
                        self._active.want_key_frame()
        except Exception:
            log.exception("failed: %s", type(frame).__name__)

    # --- calls

    async def _start_call(self, frame: ipc.StartCall) -> None:
        await asyncio.to_thread(_load_calls)
        from edge_agent.media.peer import Leg

        if frame.call != self._call:
            await self._stop_call()
            self._call = frame.call
        if frame.leg in self._legs:
            return
        leg = Leg(frame.call, frame.leg, frame.ice_servers, frame.held, self, self._link_memory)
        self._legs[frame.leg] = leg
        self._microphone.add(leg.microphone.hear)
        self._camera.add(leg.camera.see)
        log.info("leg started call=%s leg=%d", frame.call.hex(), frame.leg)
        self._start(self._offer(leg))

    async def _offer(self, leg: Leg) -> None:
        try:
            offer = await leg.offer()
        except Exception as error:
            log.exception("no offer call=%s leg=%d", leg.call.hex(), leg.number)
            self.over(leg, f"no offer could be made: {error}")
            return
        if self._legs.get(leg.number) is leg:
            self.send(ipc.OfferMade(leg.call, leg.number, offer))

    async def _take_answer(self, call: bytes, number: int, answer: bytes) -> None:
        leg = self._legs.get(number)
        if leg is None or leg.call != call or number != max(self._legs):
            log.info("answer to an older leg ignored call=%s leg=%d", call.hex(), number)
            return
        try:
            await leg.take_answer(answer)
        except ValueError as error:
            log.warning("answer not taken call=%s leg=%d error=%s", call.hex(), number, error)
            self.over(leg, f"the far end's answer cannot be used: {error}")

    async def _stop_call(self) -> None:
        for leg in list(self._legs.values()):
            self._drop(leg)
        self._call = b""

    def _drop(self, leg: Leg) -> None:
        if self._legs.get(leg.number) is leg:
            del self._legs[leg.number]
        self._microphone.remove(leg.microphone.hear)
        self._camera.remove(leg.camera.see)
        if self._active is leg:
            self._active = None
            self._speaker.set_call(None)
        self._start(self._close(leg))

    async def _close(self, leg: Leg) -> None:
        await leg.close()
        if leg.is_connected:
            await asyncio.to_thread(_keep_trace, self._traces, leg)

    # --- what a leg tells (LegOwner)

    def send(self, frame: ipc.FromMedia) -> None:
        self._link.send(frame)

    def connected(self, leg: Leg) -> None:
        if self._legs.get(leg.number) is not leg:
            return
        for older in [other for other in self._legs.values() if other.number < leg.number]:
            self._drop(older)
        self._active = leg
        self._speaker.set_call(leg)
        self.send(ipc.MediaConnected(leg.call, leg.number))

    def over(self, leg: Leg, reason: str) -> None:
        if self._legs.get(leg.number) is not leg:
            return
        log.warning("leg lost call=%s leg=%d reason=%s", leg.call.hex(), leg.number, reason)
        self._drop(leg)
        self.send(ipc.MediaLost(leg.call, leg.number, reason))

    def far_picture(self, leg: Leg, picture: EncodedPicture) -> bool:
        if self._active is not leg:
            return False
        if self._as_jpeg is not None:
            return self._as_jpeg.decode(picture)
        dropped = self._link.dropped_pictures
        self._link.send(ipc.FarPicture("vp8", picture.key, picture.time_ms, picture.data, picture.still))
        return self._link.dropped_pictures == dropped

    def _send_pictures_as(self, kind: str) -> None:
        if kind not in ("vp8", "jpeg"):
            log.warning("pictures cannot be sent as %r, vp8 or jpeg can", kind)
            return
        if (kind == "jpeg") == (self._as_jpeg is not None):
            return
        if self._as_jpeg is not None:
            self._as_jpeg.close()
            self._as_jpeg = None
        else:
            self._as_jpeg = FarPictureDecoder(
                lambda picture: self._send_soon(
                    ipc.FarPicture("jpeg", True, picture.time_ms, picture.data, picture.still)
                ),
                lambda: self._soon(self._want_key_frame),
            )
        self._want_key_frame()

    def _want_key_frame(self) -> None:
        if self._active is not None:
            self._active.want_key_frame()

    # --- prompts, recordings, photos

    def _play(self, id: str, sound: str | tuple[bytes, ...], loop: bool = False) -> None:
        def ended(whole: bool, error: str) -> None:
            self._send_soon(ipc.Played(id, whole, error))

        self._speaker.play(Prompt(sound, loop, ended))

    def _start_turn(self, id: str) -> None:
        if self._turn is not None:
            self.send(ipc.TurnSound(id, (), last=True))
            return

        def part(packets: tuple[bytes, ...], last: bool) -> None:
            if last:
                self._soon(over)
            self._send_soon(ipc.TurnSound(id, packets, last))

        def over() -> None:
            self._microphone.remove(recorder.hear)
            self._turn = None

        recorder = self._turn = TurnRecorder(part)
        self._microphone.add(recorder.hear)

    async def _probe(self, call: bytes, in_full: bool) -> None:
        leg = self._active
        fits = leg is not None and leg.call == call and await leg.carries_live(in_full)
        self.send(ipc.LiveProbed(call, fits))

    def _start_recording(self, frame: ipc.StartRecording) -> None:
        if self._recorder is not None:
            self.send(ipc.Recorded(frame.id, frame.path, 0, "another recording is under way"))
            return

        def ended(duration_ms: int, error: str) -> None:
            self._soon(over)
            self._send_soon(ipc.Recorded(frame.id, frame.path, duration_ms, error))

        def over() -> None:
            self._microphone.remove(recorder.hear)
            self._recorder = None

        recorder = self._recorder = Recorder(
            frame.path,
            frame.max_seconds,
            lambda level, elapsed_ms: self._send_soon(ipc.RecordingLevel(frame.id, level, elapsed_ms)),
            ended,
            lambda: self._microphone.state.error or "",
        )
        self._microphone.add(recorder.hear)

    def _take_photo(self, frame: ipc.TakePhoto) -> None:
        made: list[ipc.PhotoRendition] = []

        def keep(pixels: NDArray[np.uint8]) -> None:
            made.extend(write_renditions(Path(frame.path), pixels))

        def ended(error: str) -> None:
            self._camera.remove(photographer.see)
            self._send_soon(ipc.PhotoTaken(frame.id, frame.path, error, tuple(made)))

        photographer = Photographer(
            keep,
            just_opened=not self._camera.in_use,
            ended=ended,
            why_dark=lambda: self._camera.state.error or "",
        )
        self._camera.add(photographer.see)

    def photo_wanted(self, leg: Leg) -> None:
        """By the doctor: the sharpest of the next few pictures, as they are."""

        def keep(pixels: NDArray[np.uint8]) -> None:
            stages = in_stages(pixels, leg.still_room_bps)
            self._soon(lambda: leg.send_photo(stages))

        def ended(error: str) -> None:
            self._camera.remove(photographer.see)
            if error:
                self._soon(lambda: leg.send_photo([]))

        photographer = Photographer(
            keep, just_opened=not self._camera.in_use, ended=ended, why_dark=lambda: self._camera.state.error or ""
        )
        self._camera.add(photographer.see)

    def _show_own_picture(self, on: bool) -> None:
        if self._preview is not None:
            self._camera.remove(self._preview.see)
            self._preview = None
        if on:
            self._preview = Preview(lambda data: self._send_soon(ipc.OwnPicture(data)))
            self._camera.add(self._preview.see)

    # --- devices

    def _device_changed(self) -> None:
        self._soon(self._send_ready)

    def _send_ready(self) -> None:
        if not self._ready:
            return
        states = [state for state in (self._camera.state, self._microphone.state, self._speaker.state) if state.error]
        self.send(
            ipc.MediaReady(
                tuple(state.name for state in states), tuple(f"{state.name}: {state.error}" for state in states)
            )
        )

    # --- from other threads, and tasks

    def _send_soon(self, frame: ipc.FromMedia) -> None:
        self._soon(lambda: self._link.send(frame))

    def _soon(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process with it
            self._loop.call_soon_threadsafe(work)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("failed in the background", exc_info=error)


def _keep_trace(folder: Path, leg: Leg) -> None:
    """For `teleconsult trace`. A full disk is no reason for more than a line in the log."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{leg.call.hex()}-{leg.number}.trace").write_bytes(leg.trace())
        for old in sorted(folder.glob("*.trace"), key=lambda path: path.stat().st_mtime)[:-TRACES_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("trace not kept reason=%s", error)


def _load_calls() -> None:
    """Half a second of imports that the start need not wait for, nor the first call."""
    from edge_agent.media import hooks, peer  # noqa: F401 - for what importing it brings in

    hooks.install()


def _put_voice_first() -> None:
    """Ahead of pages and disks where the system allows it (as root, or by the unit's LimitNICE), and sound ahead of
    the other threads."""
    sys.setswitchinterval(0.001)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, VOICE_NICENESS)


def _die_with_parent() -> None:
    """The kernel kills this process with the agent, should its end of the socket ever outlive it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
