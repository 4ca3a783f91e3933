"""The kit's own media process, as `teleconsult media` runs it, with noting devices in place of the kiosk's.

python kit_main.py SOCKET CONFIG WAV FILM FOLDER [unpaced]
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edge_agent.config import read_kiosk_settings
from edge_agent.media.egress import Egress
from edge_agent.media.process import run
from hardware import devices
from tests.bench.devices import EAR, LENS, MOUTH, NotingCamera, NotingMicrophone, NotingSpeaker

if __name__ == "__main__":
    socket_path, config, wav, film, folder = map(Path, sys.argv[1:6])
    if sys.argv[6:] == ["unpaced"]:
        Egress.set_rate = lambda self, rate_bps: None  # type: ignore[method-assign]
    devices.open_microphone = lambda spec: NotingMicrophone(wav, folder / MOUTH)  # type: ignore[assignment]
    devices.open_speaker = lambda spec: NotingSpeaker(folder / EAR)  # type: ignore[assignment]
    devices.open_camera = lambda spec, width, height, rate: NotingCamera(film, folder / LENS)  # type: ignore[assignment]
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    sys.exit(run(socket_path, read_kiosk_settings(config)))
