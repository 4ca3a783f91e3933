import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pictures_are_as_drawn_now_and_are_all_shown():
    result = subprocess.run(
        [sys.executable, ROOT / "scripts/draw-clinic-setup", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    shown = re.findall(r"\(images/(setup-\S+\.svg)\)", (ROOT / "docs/clinic-setup.md").read_text())
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs/images").glob("setup-*.svg"))
