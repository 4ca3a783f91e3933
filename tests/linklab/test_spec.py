"""Links as people write them."""

from pathlib import Path

import pytest

from tests.linklab.path import Loss, Outage, Rate
from tests.linklab.spec import LINKS, SpecError, in_words, parse_link


def test_all_its_parts():
    up, down = parse_link("up=18,down=20.5,150+40ms,5%x3,0.6s,outage=20+6,outage=45+3")
    assert (up.rate, down.rate) == (Rate.constant(18_000), Rate.constant(20_500))
    for way in (up, down):
        assert (way.delay_s, way.jitter_s, way.queue_s) == (0.15, 0.04, 0.6)
        assert way.loss == Loss(0.05, 3)
        assert way.outages == (Outage(20, 6), Outage(45, 3))
    assert up.seed != down.seed


def test_a_rate_alone_and_a_name():
    up, down = parse_link("64k, 200ms")
    assert up.rate == down.rate == Rate.constant(64_000)
    assert parse_link("vsat") is LINKS["vsat"]


def test_traces(tmp_path: Path):
    (tmp_path / "trace.csv").write_text("time_s,kbps\n0,64\n1,128\n")
    up, down = parse_link(f"uptrace={tmp_path}/trace.csv,down=40")
    assert up.rate.at(1.5) == 128_000
    assert down.rate.at(1.5) == 40_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fast", "'fast' is no part"),
        ("up=64,20ms", "a rate each way"),
        ("64,100%", "loss is a fraction"),
        ("0", "above 0"),
        ("trace=/nowhere.csv", "/nowhere.csv: No such file"),
    ],
)
def test_what_is_no_link(text: str, says: str):
    with pytest.raises(SpecError, match=says):
        parse_link(text)


def test_other_seeds_lose_other_packets_each_way():
    seeds = [way.seed for run in (1, 2, 3) for way in LINKS["64"].seeded(run)]
    assert len(set(seeds)) == 6


def test_in_words():
    assert in_words(LINKS["18"]) == "18 up 20 down, 650 ms, 2 %, 2 s"
    assert in_words(LINKS["384"]) == "384, 100 + 0…30 ms, 10 % in threes, 0.4 s"
    assert in_words(LINKS["steps"]) == "512→96→384→64, 100 ms, 0.4 s"
    assert in_words(LINKS["outages"]).endswith("0.6 s, an outage of 6 s at 20 s, an outage of 3 s at 45 s")
