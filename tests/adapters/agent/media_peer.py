"""A media process without media: obeys `edge_agent.ipc` and makes files, so that the agent is tested alone and fast.

Its files hold random bytes. With TELECONSULT_TEST_MISSING it says that those devices are missing. What it offers is
TELECONSULT_TEST_OFFER, in hex; the answers that it would connect to go into the file TELECONSULT_TEST_ANSWERS.
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
    playing = ""
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
            case ipc.StopRecording() if recording is not None:
                Path(recording.path).write_bytes(os.urandom(40_000))
                link.send(ipc.Recorded(recording.id, recording.path, 2000))
                recording = None
            case ipc.TakePhoto(id, path):
                Path(path).write_bytes(os.urandom(60_000))
                link.send(ipc.PhotoTaken(id, path))
            case ipc.StartCall(call, leg):
                offer = bytes.fromhex(os.environ.get("TELECONSULT_TEST_OFFER", "")) or b"offer of leg %d" % leg
                link.send(ipc.OfferMade(call, leg, offer))
            case ipc.TakeAnswer(call, leg, answer):
                if answers := os.environ.get("TELECONSULT_TEST_ANSWERS"):
                    before = Path(answers).read_text() if Path(answers).exists() else ""
                    Path(answers).write_text(f"{before}{answer.hex()}\n")
                link.send(ipc.MediaConnected(call, leg))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
