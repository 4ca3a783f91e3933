"""What the bench found, as tables for the terminal and for docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.plot import draw
from tests.bench.results import Result, Summary, Way, machine
from tests.bench.rows import KITS, PEERS, PEERS_IN_WORDS, ROWS, Row
from tests.e2e.tap import CHROMIUM
from tests.linklab.spec import in_words

BEGIN, END = "<!-- bench-call: made by scripts/bench-call --write -->", "<!-- /bench-call -->"
PLOT = "performance-calls.svg"
# "In the same run not worse than the best of the others by more than this."
PESQ_MARGIN, HEARD_MARGIN, DELAY_MARGIN_MS, DELAY_MARGIN = 0.1, 0.01, 20, 0.10

Table = list[list[str]]

VOICE = ["link each way", "peer", "PESQ ↑ / ↓", "heard ↑ / ↓", "mouth-to-ear p50 ↑ / ↓", "p95 ↑ / ↓", "concealed ↑ / ↓",
         "queue p95 ↑ / ↓", "kbit/s ↑ / ↓", "CPU", "PSS", "runs", "load"]  # fmt: skip
PICTURES = ["link each way", "peer", "pictures/s ↑ / ↓", "latency p50 ↑ / ↓", "p95 ↑ / ↓", "frozen ↑ / ↓",
            "freezes ↑ / ↓", "SSIM ↑ / ↓", "size ↑ / ↓"]  # fmt: skip


def voice_table(found: Sequence[Summary]) -> Table:
    return [
        [
            _link(each), each.peer + _fate(each),
            _pair(each, lambda way: f"{way.pesq:.2f}"),
            _pair(each, lambda way: f"{way.heard * 100:.0f} %"),
            _pair(each, lambda way: _ms(way.delay_p50_ms)),
            _pair(each, lambda way: _ms(way.delay_p95_ms)),
            _pair(each, lambda way: _percent(way.concealed)),
            _pair(each, lambda way: _ms(way.queue_p95_ms)),
            _pair(each, lambda way: f"{way.kbps:.0f}"),
            "–" if each.cpu is None else f"{each.cpu * 100:.0f} %",
            "–" if each.pss_mb is None else f"{each.pss_mb:.0f} MB",
            str(each.runs), f"{each.load:.1f}",
        ]
        for each in _ordered(found)
    ]  # fmt: skip


def picture_table(found: Sequence[Summary]) -> Table:
    return [
        [
            _link(each), each.peer,
            _pair(each, lambda way: f"{way.pictures_s:.1f}"),
            _pair(each, lambda way: _ms(way.picture_p50_ms)),
            _pair(each, lambda way: _ms(way.picture_p95_ms)),
            _pair(each, lambda way: f"{way.frozen * 100:.0f} %"),
            _pair(each, lambda way: f"{way.freezes:.0f}"),
            _pair(each, lambda way: "–" if way.ssim is None else f"{way.ssim:.3f}"),
            _pair(each, lambda way: way.size or "–"),
        ]
        for each in _ordered(found)
        if each.up.has_pictures
    ]  # fmt: skip


def verdicts(found: Sequence[Summary]) -> list[str]:
    """A line a row that the kit was measured on: what was promised, and where it is worse than the best other."""
    lines = []
    for row in ROWS.values():
        of_row = {each.peer: each for each in found if each.row == row.name}
        others = [each for peer, each in of_row.items() if peer not in KITS]
        for peer in ("kit", "told"):
            if (kit := of_row.get(peer)) is not None:
                short = _short_of_target(row, kit) + _worse_than_others(kit, others)
                name = row.name if peer == "kit" else f"{row.name}, {peer}"
                lines.append(f"{name}: {'; '.join(short) if short else 'as promised'}")
    return lines


def _short_of_target(row: Row, kit: Summary) -> list[str]:
    short = []
    if row.target is not None:
        wanted = {"up": row.target.up_pesq, "down": row.target.down_pesq}
        for name, way in (("up", kit.up), ("down", kit.down)):
            if way.pesq < wanted[name] - 0.005:
                short.append(f"PESQ {name} {way.pesq:.2f}, wanted {wanted[name]:.1f}")
            if way.heard < row.target.heard - 0.0005:
                short.append(f"heard {name} {way.heard * 100:.0f} %, wanted {row.target.heard * 100:.0f}")
            if way.delay_p95_ms is None or way.delay_p95_ms > row.target.delay_p95_ms:
                short.append(f"p95 {name} {_ms(way.delay_p95_ms)}, wanted {row.target.delay_p95_ms:.0f}")
    for outage_way, name in ((kit.up, "up"), (kit.down, "down")):
        if row.link.up.outages:
            back = "never" if outage_way.voice_back_s is None else f"{outage_way.voice_back_s:.1f} s"
            normal = "never" if outage_way.delay_normal_s is None else f"{outage_way.delay_normal_s:.1f} s"
            short.append(f"after the outages voice {name} back in {back}, its delay normal in {normal}")
    return short


def _worse_than_others(kit: Summary, others: Sequence[Summary]) -> list[str]:
    worse = []
    for name in ("up", "down"):
        own: Way = getattr(kit, name)
        for other in others:
            way: Way = getattr(other, name)
            if own.pesq < way.pesq - PESQ_MARGIN:
                worse.append(f"PESQ {name} {own.pesq:.2f} under {other.peer}'s {way.pesq:.2f}")
            if own.heard < way.heard - HEARD_MARGIN:
                worse.append(f"heard {name} {own.heard * 100:.0f} % under {other.peer}'s {way.heard * 100:.0f}")
            if way.delay_p95_ms is not None and way.heard > 0.9:
                most = way.delay_p95_ms + max(DELAY_MARGIN_MS, DELAY_MARGIN * way.delay_p95_ms)
                if own.delay_p95_ms is None or own.delay_p95_ms > most:
                    worse.append(f"p95 {name} {_ms(own.delay_p95_ms)} over {other.peer}'s {_ms(way.delay_p95_ms)}")
    return worse


def for_terminal(found: Sequence[Summary]) -> str:
    parts = []
    for heading, table in ((VOICE, voice_table(found)), (PICTURES, picture_table(found))):
        if table:
            rows = [heading, *table]
            widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
            parts.append("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows))
    return "\n\n".join([*parts, "\n".join(verdicts(found))])


def write(document: Path, results: Sequence[Result], found: Sequence[Summary], preliminary: bool) -> None:
    """Into its own part of the document; the rest stays. The plot goes beside it."""
    (document.parent / PLOT).write_text(draw(found), encoding="utf-8")
    part = f"{BEGIN}\n{_markdown(results, found, preliminary)}\n{END}"
    text = document.read_text(encoding="utf-8") if document.exists() else "# Performance\n"
    if BEGIN in text:
        text = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: part, text, flags=re.DOTALL)
    else:
        text = text.rstrip("\n") + "\n\n" + part + "\n"
    document.write_text(text, encoding="utf-8")


def _markdown(results: Sequence[Result], found: Sequence[Summary], preliminary: bool) -> str:
    lengths = sorted({result.seconds for result in results})
    browser = subprocess.run([CHROMIUM, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    browser = re.split(r" built on", browser.splitlines()[-1])[0] if browser else "Chromium"
    loads = [each.load for each in found]
    measured = {each.peer for each in found}
    peers = "\n".join(f"- `{peer}`: {PEERS_IN_WORDS[peer]}" for peer in PEERS if peer in measured)
    notice = (
        "**Preliminary**: few or short runs, on a machine that others used too; *load* says how busy it was.\n\n"
        if preliminary
        else ""
    )
    return f"""\
## Calls over poor links

{notice}![PESQ, heard and mouth-to-ear delay of each peer on each link]({PLOT})

Each call runs through an emulated link (`tests/linklab`): in each direction a drop-tail queue, the rate, loss, and
delay. The far end is always a real Chromium, without echo cancellation, noise suppression and gain control. ↑ is
kiosk → doctor, ↓ doctor → kiosk; the first 5 s of a call do not count; figures are medians of the runs.

{peers}

{_markdown_table(VOICE, voice_table(found))}

*PESQ*: P.862.1, narrow band, the mean of windows of 8 s. *Heard*: the share of the seconds with speech that can be
recognised in what was played. *Mouth-to-ear*: of those seconds, from the microphone to the loudspeaker; the kiosk's
loudspeaker counts with its own 40 ms of queue, the browser's without. *CPU*: of one processor, of the process at the
kiosk. *kbit/s* is what arrived, headers included.

The promises are for recorded speech (`--corpus FOLDER`). Without a folder espeak-ng speaks, whose voice suffers more:
Opus by itself gives it 2.5 at 6 kbit/s and 3.6 at 12, where recorded speech has 3.5 and 4.2.

{_markdown_table(PICTURES, picture_table(found))}

*Latency* is from the camera to the screen, by the number that each picture carries; *frozen* the share of the time in
freezes of more than a second; *SSIM* against the very picture that was taken, at 640×480.

Against what is promised, and against the best of the others in the same table (worse by more than PESQ
{PESQ_MARGIN}, heard 1 point, delay {DELAY_MARGIN_MS} ms or {DELAY_MARGIN * 100:.0f} %):

{chr(10).join(f"- {line}" for line in verdicts(found))}

Repeat it: `scripts/bench-call` (all rows and peers, three runs of 60 s each; it goes on where it was stopped), or
`scripts/bench-call --rows 64,32 --peers kit,tuned --runs 1 --seconds 30`. Measured on {machine()}, {os.cpu_count()}
processors, Linux {platform.release().partition("-")[0]}, Python {platform.python_version()},
aiortc {version("aiortc")}, PyAV {version("av")}, {browser};
calls of {" and ".join(f"{length:g}" for length in lengths)} s; said and shown:
{", ".join(sorted({result.material for result in results}))}; load {min(loads):.1f} to {max(loads):.1f}."""


def _markdown_table(heading: Sequence[str], rows: Table) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ordered(found: Sequence[Summary]) -> list[Summary]:
    rows, peers = list(ROWS), list(PEERS)
    return sorted(found, key=lambda each: (rows.index(each.row), peers.index(each.peer)))


def _link(each: Summary) -> str:
    return f"**{each.row}**: {in_words(ROWS[each.row].link)}" if each.peer in KITS else each.row


def _fate(each: Summary) -> str:
    if each.connected_s is None:
        return " (never connected)"
    return "" if each.state == "connected" else f" ({each.state})"


def _pair(each: Summary, tell: Callable[[Way], str]) -> str:
    return f"{tell(each.up)} / {tell(each.down)}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"
