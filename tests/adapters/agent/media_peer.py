"""A media process without media: obeys `edge_agent.ipc` and makes files, so that the agent is tested alone and fast.

Its files hold random bytes. With TELECONSULT_TEST_MISSING it says that those devices are missing. What it offers is
TELECONSULT_TEST_OFFER, in hex; the answers that it would connect to go into the file TELECONSULT_TEST_ANSWERS. With
TELECONSULT_TEST_LOSSY its calls lose half of the far voice, with TELECONSULT_TEST_FITS every probe says that live
fits, and what it plays of turns goes into the file TELECONSULT_TEST_TURNS. With TELECONSULT_TEST_RENDITIONS its photos
have a thumbnail and an original.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from edge_agent import ipc

CLIP_S = 0.05  # every sound is this long


async def main(socket: str) -> None:
    with ipc.short_path(Path(socket)) as short:
        link = ipc.Link(*await asyncio.open_unix_connection(short), ipc.ToMedia)
    missing = tuple(os.environ.get("TELECONSULT_TEST_MISSING", "").split())
    link.send(ipc.MediaReady(missing, tuple(f"{name}: none in this test" for name in missing)))
    loop = asyncio.get_running_loop()
    playing = turn = ""
    lossy: asyncio.Task[None] | None = None
    recording: ipc.StartRecording | None = None

    def ended(id: str) -> None:
        nonlocal playing
        if playing == id:
            playing = ""
            link.send(ipc.Played(id, True))

    while (frame := await link.receive()) is not None:
        match frame:
            case ipc.Play(id, path, loops):
                if playing:
                    link.send(ipc.Played(playing, False))
                playing = id
                if not Path(path).is_file():
                    playing = ""
                    link.send(ipc.Played(id, False, f"{path}: no such file"))
                elif not loops:
                    loop.call_later(CLIP_S, ended, id)
            case ipc.StopPlaying() if playing:
                link.send(ipc.Played(playing, False))
                playing = ""
            case ipc.StartRecording():
                recording = frame
                link.send(ipc.RecordingLevel(frame.id, 0.5, 10))
            case ipc.PlayTurn(id, packets):
                if turns := os.environ.get("TELECONSULT_TEST_TURNS"):
                    before = Path(turns).read_text() if Path(turns).exists() else ""
                    Path(turns).write_text(f"{before}{b''.join(packets).hex()}\n")
                playing = id
                loop.call_later(CLIP_S, ended, id)
            case ipc.StartTurn(id):
                turn = id
                link.send(ipc.TurnSound(id, (b"one", b"two"), False))
            case ipc.StopTurn() if turn:
                link.send(ipc.TurnSound(turn, (b"three",), True))
                turn = ""
            case ipc.ProbeLive(call):
                link.send(ipc.LiveProbed(call, "TELECONSULT_TEST_FITS" in os.environ))
            case ipc.StopRecording() if recording is not None:
                Path(recording.path).write_bytes(os.urandom(40_000))
                link.send(ipc.Recorded(recording.id, recording.path, 2000))
                recording = None
            case ipc.TakePhoto(id, path):
                Path(path).write_bytes(os.urandom(60_000))
                made: list[ipc.PhotoRendition] = []
                if "TELECONSULT_TEST_RENDITIONS" in os.environ:
                    for name, mime, size in (("thumbnail", "image/webp", 2_000), ("original", "image/jpeg", 200_000)):
                        made.append(ipc.PhotoRendition(name, mime, f"{path}.{name}"))
                        Path(made[-1].path).write_bytes(os.urandom(size))
                link.send(ipc.PhotoTaken(id, path, "", tuple(made)))
            case ipc.StartCall(call, leg):
                offer = bytes.fromhex(os.environ.get("TELECONSULT_TEST_OFFER", "")) or b"offer of leg %d" % leg
                link.send(ipc.OfferMade(call, leg, offer))
            case ipc.TakeAnswer(call, leg, answer):
                if answers := os.environ.get("TELECONSULT_TEST_ANSWERS"):
                    before = Path(answers).read_text() if Path(answers).exists() else ""
                    Path(answers).write_text(f"{before}{answer.hex()}\n")
                link.send(ipc.MediaConnected(call, leg))
                if "TELECONSULT_TEST_LOSSY" in os.environ and lossy is None:
                    lossy = loop.create_task(_be_lossy(link, call, leg))


async def _be_lossy(link: ipc.Link, call: bytes, leg: int) -> None:
    """Half of the far voice does not come, for ever: as fast as the agent's clock lets it be judged."""
    count = 0
    while True:
        count += 10
        link.send(
            ipc.CallStats(
                call, leg, 300.0, count, count, 0, 0, sent_bytes=count * 100, received_bytes=count * 40,
                sound_received=count, sound_lost=count, lost_up=0.0,
            )
        )  # fmt: skip
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
