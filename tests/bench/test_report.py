"""Results that are kept, their medians, and what is told of them."""

import xml.etree.ElementTree as ET

import msgspec
import pytest

from tests.bench import report
from tests.bench.ends import munged
from tests.bench.plot import draw
from tests.bench.results import Result, Results, Way, build_of, summaries
from tests.bench.rows import PEERS, ROWS, Tuning


def way(**changes):
    usual = Way(
        pesq=3.6, heard=1.0, delay_p50_ms=300, delay_p95_ms=400, delays_ms=(300, None), voice_back_s=None,
        delay_normal_s=None, has_pictures=True, pictures_s=5.0, picture_p50_ms=400, picture_p95_ms=500, freezes=0,
        frozen=0.0, ssim=0.9, size="160×120", concealed=0.01, queue_p95_ms=90, kbps=50.0,
    )  # fmt: skip
    return msgspec.structs.replace(usual, **changes)


def result(row="64", peer="kit", run=1, up=None, down=None, **changes):
    usual = Result(
        row=row, peer=peer, run=run, seconds=60, material="speech", at=f"2024-01-01T00:00:0{run}", load=1.0,
        connected_s=1.0, state="connected", cpu=0.2, pss_mb=150, up=up or way(), down=down or way(),
        build=build_of(peer),
    )  # fmt: skip
    return msgspec.structs.replace(usual, **changes)


def test_a_run_that_is_there_is_not_repeated(tmp_path):
    results = Results(tmp_path)
    assert not results.has("64", "kit", 1, 60, "speech")
    results.add(result())
    with (tmp_path / "calls.jsonl").open("a") as file:
        file.write('{"row": "64", "pee\n')  # a kill in the middle
    assert Results(tmp_path).has("64", "kit", 1, 60, "speech")
    assert not results.has("64", "kit", 2, 60, "speech")
    assert not results.has("64", "kit", 1, 30, "speech")
    results.add(result(run=2, build="kit of another day"))
    assert not results.has("64", "kit", 2, 60, "speech")


def test_the_median_of_the_newest_build():
    runs = [
        result(run=1, build="old", up=way(pesq=1.0)),
        *(result(run=n, up=way(pesq=pesq, delay_p95_ms=p95), at=f"2024-01-02T00:00:0{n}")
          for n, pesq, p95 in ((1, 3.1, 400), (2, 3.9, None), (3, 3.3, 500))),
    ]  # fmt: skip
    (summary,) = summaries(runs)
    assert (summary.runs, summary.up.pesq, summary.up.delay_p95_ms) == (3, 3.3, 450)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "64: as promised"),
        ({"pesq": 3.2}, "PESQ down 3.20, wanted 3.5; PESQ down 3.20 under tuned's 3.60"),
        ({"heard": 0.95}, "heard down 95 %, wanted 99; heard down 95 % under tuned's 100"),
        ({"delay_p95_ms": 450}, "p95 down 450 ms over tuned's 400 ms"),
        ({"delay_p95_ms": None}, "p95 down –, wanted 550"),
    ],
)
def test_verdicts(change, says):
    found = summaries([result(down=way(**change)), result(peer="tuned")])
    (line,) = report.verdicts(found)
    assert says in line


def test_the_document_keeps_the_rest(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text("# Performance\n\nBefore.\n")
    runs = [
        result(),
        result(peer="tuned"),
        result(row="18", peer="stock", connected_s=None, up=way(has_pictures=False)),
    ]
    for _ in range(2):
        report.write(document, runs, summaries(runs), preliminary=True)
    text = document.read_text()
    assert text.startswith("# Performance\n\nBefore.\n")
    assert text.count("## Calls over poor links") == 1
    assert "**64**: 64, 200 ms, 2 % in pairs, 1 s | kit | 3.60 / 3.60 | 100 % / 100 %" in text
    assert "stock (never connected)" in text
    assert "Preliminary" in text


def test_the_plot_has_a_mark_for_each():
    runs = [result(row=row, peer=peer) for row in ROWS for peer in PEERS]
    root = ET.fromstring(draw(summaries(runs)))
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(PEERS) + 3 * len(runs)
    promises = [line for line in root.iter() if line.get("stroke") == "#222"]
    assert len(promises) == 1 + 3 * sum(row.target is not None for row in ROWS.values())


OFFER = (
    "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n"
)


def test_what_tuning_by_hand_asks_for():
    text = munged(OFFER, Tuning(12_000, 60, video_bps=30_000))
    assert "a=fmtp:111 minptime=10;useinbandfec=1;maxaveragebitrate=12000\r\na=ptime:60\r\n" in text
    assert "a=fmtp:96 x-google-start-bitrate=30;x-google-max-bitrate=30\r\n" in text
    assert ROWS["24"].tuning.red
    assert ROWS["1000"].tuning.video_bps == pytest.approx(0.85 * (1_000_000 - 24_000 - 50 * 464), abs=1)
