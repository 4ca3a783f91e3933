"""Where the kit reaches into aioice: what `Connection` does here as it should on long, thin and lossy links.

Tried with aioice 0.13.0 and aiortc 1.16.0; `tests/unit/test_media_ice.py` fails when a name used here disappears.
"""

from __future__ import annotations

import asyncio
import random

import aioice.ice
import aioice.stun
import aiortc.rtcicetransport

from edge_agent.core.consent import EXPIRES_S, Consent

_stock_host_addresses = aioice.ice.get_host_addresses


def install() -> None:
    """Once, before the first peer connection."""
    aioice.ice.get_host_addresses = _host_addresses
    aiortc.rtcicetransport.Connection = Connection  # type: ignore[misc]


class Connection(aioice.ice.Connection):
    async def query_consent(self) -> None:
        """The stock one waits 0.5 s for each answer, and closes a call whose round trip is longer than that."""
        loop = asyncio.get_running_loop()
        consent = Consent(loop.time(), _spread())
        open_questions: list[_Question] = []
        try:
            while (now := loop.time()) < consent.expires_at:
                if now >= consent.next_question_at:
                    consent.asked(now, _spread())
                    open_questions = [each for each in open_questions if each.is_open(now)]
                    for pair in self._nominated.values():
                        open_questions.append(_Question(self, pair, consent))
                await asyncio.sleep(min(consent.next_question_at, consent.expires_at) - now)
        finally:
            for question in open_questions:
                question.close()
        self._query_consent_task = None
        await self.close()


class _Question:
    """Stands in for aioice's transaction: sent once, and open for as long as an answer means something.

    It nominates the pair anew, as a check does: a far end that sees it come from another address, because a router
    between has forgotten the old one, goes over to that.
    """

    def __init__(self, connection: Connection, pair: aioice.ice.CandidatePair, consent: Consent) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol, self._address, self._consent = pair.protocol, pair.remote_addr, consent
        self._key = (connection.remote_password or "").encode()
        self._asked_at = self._loop.time()
        request = connection.build_request(pair, nominate=True)
        request.add_message_integrity(self._key)
        self._id = request.transaction_id
        self._protocol.transactions[self._id] = self  # type: ignore[assignment]
        self._protocol.send_stun(request, self._address)

    def is_open(self, now: float) -> bool:
        if now - self._asked_at < EXPIRES_S:
            return True
        self.close()
        return False

    def response_received(self, message: aioice.stun.Message, addr: tuple[str, int]) -> None:
        genuine = addr == self._address and message.check_message_integrity(self._key)
        if genuine and message.message_class == aioice.stun.Class.RESPONSE:
            self._consent.answered(self._asked_at, self._loop.time())
            self.close()

    def close(self) -> None:
        self._protocol.transactions.pop(self._id, None)


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Loopback where there is nothing else, so that a laptop without any network can show the kit."""
    return _stock_host_addresses(use_ipv4, use_ipv6) or ["127.0.0.1"]


def _spread() -> float:
    return random.uniform(-1, 1)  # noqa: S311 - spreads load only
