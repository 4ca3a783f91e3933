"""`teleconsult agent` with the media peer of these tests in place of the kit's media process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edge_agent.config import read_kiosk_settings
from kiosk.agent_process import run

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    path = Path(sys.argv[1])
    sys.exit(
        run(read_kiosk_settings(path), path, [sys.executable, "-m", "tests.adapters.agent.media_peer", "{socket}"])
    )
