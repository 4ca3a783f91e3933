"""The kiosk's agent as `teleconsult agent` runs it, its media process with the bench's noting devices.

python noting_agent.py CONFIG WAV FILM FOLDER
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edge_agent.config import read_kiosk_settings
from kiosk import agent_process

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    config = Path(sys.argv[1])
    # By its last word `tests.e2e.kiosk` finds it.
    media = [sys.executable, "-m", "tests.bench.kit_main", "{socket}", *sys.argv[1:], "media"]
    sys.exit(agent_process.run(read_kiosk_settings(config), config, media))
