"""A private PulseAudio with null sinks: a real sound server that plays into nothing, for programs that want cards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.devices import list_devices

ALSA_NAMES = """
pcm.clinic_speaker { type pulse device "clinic" }
pcm.clinic_microphone { type pulse device "clinic.monitor" }
"""


class PulseAudio:
    """Two sinks; what is played into one is heard by its monitor. `first` is the system's own choice."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "pulse.sock"
        self.environment = os.environ | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        modules = [
            f"module-native-protocol-unix socket={self._socket} auth-anonymous=1",
            "module-null-sink sink_name=first rate=48000 sink_properties=device.description=first",
            "module-null-sink sink_name=clinic rate=48000 sink_properties=device.description=clinic",
        ]
        options = ["--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--system=false", "--log-level=error"]
        options.append("--disable-shm=yes")  # with it libpulse can hang for ever over a server that was killed
        loads = [part for module in modules for part in ("-L", module)]
        self._process = subprocess.Popen(["pulseaudio", "-n", *options, *loads], env=self.environment)
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "info"], env=self.environment, capture_output=True).returncode:
            assert self._process.poll() is None, "pulseaudio ended"
            assert time.monotonic() < deadline, "pulseaudio does not answer"
            threading.Event().wait(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def sound_server(folder: Path) -> Iterator[PulseAudio]:
    """Runs, and the environment leads to it. Needs pulseaudio, libportaudio2 and libasound2-plugins; skips with its
    reason where one is missing."""
    for program in ("pulseaudio", "pactl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("sounddevice", reason="libportaudio2 is not installed", exc_type=OSError)
    names = folder / "asound.conf"
    names.write_text(ALSA_NAMES)
    server = PulseAudio(folder)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HOME", "XDG_RUNTIME_DIR", "PULSE_SERVER"):
            environment.setenv(name, server.environment[name])
        environment.setenv("ALSA_CONFIG_PATH", f"/usr/share/alsa/alsa.conf:{names}")
        server.start()
        try:
            if "pulse" not in list_devices().speakers:
                pytest.skip("ALSA knows no PulseAudio: libasound2-plugins is not installed")
            yield server
        finally:
            server.kill()
