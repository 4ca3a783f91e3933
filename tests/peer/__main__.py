"""Record what this tree puts on the wire: `python -m tests.peer VERSION`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_agent.core import wire
from tests.peer import plain, samples

HERE, NOTE = (
    Path(__file__).parent,
    "AS IT WAS in release {}: a recorded old peer, see `tests.peer`. Not to be edited.\n\n",
)

if __name__ == "__main__":
    name = sys.argv[1].replace(".", "_")
    source = Path(wire.__file__).read_text().replace('"""', '"""' + NOTE.format(sys.argv[1]), 1)
    (HERE / f"wire_{name}.py").write_text(source)
    recorded = [{"payload": wire.encode(each).hex(), "message": plain(each)} for each in samples(wire)]
    (HERE / f"messages_{name}.json").write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
