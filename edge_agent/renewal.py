"""Keeps the kiosk's certificate good: asks the hub for a newer one in time, and when the broker refuses the one it has.

The hub decides whether it is time; asked too early it answers with the same certificate and the CAs that it trusts now,
so a change of CA reaches every kiosk within a week. An expired certificate may ask as well: then a technician approves.
The key stays the same: it never leaves the device, and a new one comes with a new `teleconsult join`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from edge_agent.clock import KioskClock
from edge_agent.core.joining import Waiting
from edge_agent.core.settings import SettingsError
from edge_agent.identity import Identity, IdentityDamaged
from edge_agent.join import JoinError, Refused, renew

log = logging.getLogger(__name__)

FIRST_S = 60.0  # after a start: the line has better things to do
EVERY_S = 24 * 3600.0 * 3.5
AGAIN_S = 600.0  # after a failure, or while a technician is waited for
LEAST_S = 120.0  # however often the broker refuses
REFUSED_S = 6 * 3600.0  # the hub has looked at it and said no


class Renewal:
    """`renewed` gets the identity when it has changed."""

    def __init__(
        self, identity: Identity, address: str, clock: KioskClock, renewed: Callable[[Identity], None]
    ) -> None:
        self._identity, self._address, self._renewed = identity, address, renewed
        self._clock = clock
        self._asked = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._said = ""

    def now(self) -> None:
        """As soon as may be."""
        self._asked.set()

    def hold(self, held: bool) -> None:
        """While a call uses the link: a TLS handshake is four kilobytes at once. It does not keep from what `now` asks
        for, since then there is no line to the hub without it."""
        if held:
            self._free.clear()
        else:
            self._free.set()

    async def run(self) -> None:
        """For ever."""
        pause_s = FIRST_S
        while True:
            try:
                async with asyncio.timeout(pause_s * random.uniform(0.8, 1.2)):  # noqa: S311 -- not all at once
                    await self._asked.wait()
            except TimeoutError:
                await self._free_or_asked()
            self._asked.clear()
            pause_s = await self._ask()
            await asyncio.sleep(LEAST_S)

    async def _free_or_asked(self) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._free, self._asked)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    async def _ask(self) -> float:
        """Seconds until it should be asked again."""
        try:
            answer = await asyncio.to_thread(renew, self._identity, self._address, self._clock)
        except Refused as error:
            self._say(logging.ERROR, f"certificate not renewed reason={error}")
            return REFUSED_S
        except (JoinError, IdentityDamaged, SettingsError, OSError) as error:
            self._say(logging.WARNING, f"certificate not renewed reason={error}: it is tried again")
            return AGAIN_S
        if isinstance(answer, Waiting):
            self._say(logging.WARNING, f"certificate not renewed yet: {answer.waiting}")
            return AGAIN_S
        self._said = ""
        if (answer.certificate, answer.cas) != (self._identity.certificate, self._identity.cas):
            self._identity = answer
            log.info("certificate renewed kiosk=%s until=%s", answer.kiosk, answer.expires_at.date())
            self._renewed(answer)
        return EVERY_S

    def _say(self, level: int, line: str) -> None:
        if line != self._said:
            self._said = line
            log.log(level, "%s", line)
