"""A village at the end of a poor link: the kiosk's side of `tests.linklab`, in the place of `tests.e2e.lab`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.e2e.lab import connect_inside
from tests.linklab.lab import FAR_ADDRESS, LinkLab
from tests.linklab.path import Loss, Outage, PathCounts, PathSpec, Rate
from tests.linklab.spec import Link

OTHER_ADDRESS = "10.77.0.3"  # after a move


class FarVillage:
    """Outages are of the link, both ways, `(start_s, seconds)` from the beginning; what waits in the queue stays."""

    def __init__(self, lab: LinkLab, outages: tuple[tuple[float, float], ...]) -> None:
        self._lab = lab
        self._began = time.monotonic()
        self.outages = [(self._began + start, self._began + start + seconds) for start, seconds in outages]
        self.town_address = FAR_ADDRESS
        self.village_address = lab.near.address

    def command(self, *argv: str) -> list[str]:
        return self._lab.near.command(argv)

    def connect(self, host: str, port: int, timeout: float = 5.0):
        return connect_inside(f"/proc/{self._lab.near.pid}/ns/net", host, port, timeout)

    def change(self, link: Link) -> None:
        """Another link from now on; what waits or flies goes on."""
        self._lab.change(link.up, link.down)

    def begin(self, link: Link) -> None:
        """Another link, with its losses from the first on; what was under way is lost."""
        self._lab.change(link.up, link.down)
        self._lab.start_anew()

    def counts(self) -> tuple[PathCounts, PathCounts]:
        """Up and down, since it last began."""
        return self._lab.up_counts, self._lab.down_counts

    def move(self) -> None:
        """Another address, and nothing goes to the old one any more."""
        near, far = (
            next(line.split()[0] for line in end.run(["ip", "-br", "link"], stdout=-1, text=True).stdout.splitlines()
                 if line.startswith("ll"))
            for end in (self._lab.near, self._lab.far)
        )  # fmt: skip
        self._lab.far.run(["ip", "route", "add", OTHER_ADDRESS, "dev", far])
        for change in (
            f"ip address del {self.village_address} peer {FAR_ADDRESS} dev {near}",
            f"ip address add {OTHER_ADDRESS} peer {FAR_ADDRESS} dev {near}",
            f"ip route replace default via {FAR_ADDRESS}",
        ):
            self._lab.near.run(change.split())
        self.village_address = OTHER_ADDRESS


def both_ways(
    *, kbps: float, one_way_ms: float, loss: float = 0.0, queue_s: float = 1.5,
    outages: tuple[tuple[float, float], ...] = (),
) -> Link:  # fmt: skip
    """The same link up and down."""
    spec = PathSpec(
        Rate.constant(kbps * 1000), one_way_ms / 1000, loss=Loss(loss), queue_s=queue_s,
        outages=tuple(Outage(start, seconds) for start, seconds in outages),
    )  # fmt: skip
    return Link(spec, spec)


@contextlib.contextmanager
def open_far_village(
    *, kbps: float, one_way_ms: float, loss: float = 0.0, queue_s: float = 1.5, outages: tuple[tuple[float, float], ...]
) -> Iterator[FarVillage]:
    """Raises `tests.linklab.lab.LabUnavailable`."""
    link = both_ways(kbps=kbps, one_way_ms=one_way_ms, loss=loss, queue_s=queue_s, outages=outages)
    with LinkLab(up=link.up, down=link.down, far_is_here=True) as lab:
        yield FarVillage(lab, outages)
