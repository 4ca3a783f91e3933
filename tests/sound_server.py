"""A private PulseAudio with null sinks: a real sound server that plays into nothing, for programs that want cards."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path


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
