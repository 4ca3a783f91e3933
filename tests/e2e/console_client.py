"""A doctor without a browser: signs in and speaks the console's WebSocket. For what needs no sound and picture: a
second doctor, the inbox, what the hub has recorded."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import msgspec
import websockets
from websockets.asyncio.client import connect

from hub import console
from tests.e2e.reconnecting import ReconnectingClient

M = TypeVar("M")

_decode = msgspec.json.Decoder(console.ToConsole).decode


class ConsoleClient(ReconnectingClient):
    """Keeps its WebSocket up over restarts of the hub. `got` holds every message in order."""

    def __init__(self, url: str, name: str, password: str) -> None:
        super().__init__()
        self.name = name
        # The hub's own CA, on a LAN: who the hub is is not what these tests are about.
        self.http = httpx.AsyncClient(base_url=url, headers={"Origin": url}, trust_env=False, timeout=10, verify=False)
        self.got: list[object] = []
        self.got_at: list[float] = []  # Unix seconds of each
        self._url, self._account = url, {"name": name, "password": password}
        self._ssl = ssl._create_unverified_context() if url.startswith("https") else None

    async def open(self, available: bool = False) -> None:
        """Signs in and stays connected; `available` is asked for and waited for."""
        answer = await self.http.post("/api/login", json=self._account)
        assert answer.status_code == 204, answer.text
        self._task = asyncio.create_task(self._run())
        for kind in (console.Hello, console.Room, console.Inbox):
            await self.until(kind, lambda first: True, kind.__name__)
        await self.send(console.SetAvailable(available=available))

    async def close(self) -> None:
        await super().close()
        await self.http.aclose()

    async def until_now(
        self, kind: type[M] | tuple[type[M], ...], wanted: Callable[[M], bool], what: str, timeout_s: float = 15.0
    ) -> M:
        """As `until`, from the last message of this kind on."""
        indices = [index for index, message in enumerate(self.got) if isinstance(message, kind)]
        return await self.until(kind, wanted, what, timeout_s, since=indices[-1] if indices else 0)

    async def until_rings(self, since: int, timeout_s: float = 10.0) -> console.RingCard:
        """The first call that rings here, in what came from `got[since]` on."""

        def card(room: console.Room) -> console.RingCard | None:
            return next((ring for ring in room.queue if ring.rings_me and not ring.claimed_by), None)

        room = await self.until(console.Room, lambda room: card(room) is not None, "a call", timeout_s, since)
        ringing = card(room)
        assert ringing is not None
        return ringing

    async def until(
        self,
        kind: type[M] | tuple[type[M], ...],
        wanted: Callable[[M], bool],
        what: str,
        timeout_s: float = 15.0,
        since: int = 0,
    ) -> M:
        """The first message of `got[since:]` of this kind that is as wanted; waits for it."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for message in self.got[since:]:
                        if isinstance(message, kind) and wanted(message):
                            return message
                    since = len(self.got)
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the console was not told {what} in {timeout_s} s; {self.got[-3:]}") from None

    async def when_complete(self, consult: str, since: int, timeout_s: float = 20.0) -> float:
        """Unix seconds at which the inbox first showed the case complete, in what came from `got[since]` on."""

        def complete(inbox: console.Inbox) -> bool:
            return any(case.consult == consult and case.complete for case in inbox.cases)

        inbox = await self.until(console.Inbox, complete, f"case {consult}, complete", timeout_s, since)
        return self.got_at[next(index for index, message in enumerate(self.got) if message is inbox)]

    def last(self, kind: type[M]) -> M:
        return next(message for message in reversed(self.got) if isinstance(message, kind))

    async def case(
        self, consult: str, wanted: Callable[[console.Case], bool] = lambda case: True, timeout_s: float = 15.0
    ) -> console.Case:
        """The case as the hub has it, opened here so that its changes come too."""
        deadline = time.monotonic() + timeout_s
        while True:
            since = len(self.got)
            await self.send(console.OpenCase(consult=consult))
            answer = await self.until(
                (console.CaseShown, console.Refused),
                lambda answer: isinstance(answer, console.Refused) or answer.case.card.consult == consult,
                f"case {consult}",
                timeout_s,
                since,
            )
            if isinstance(answer, console.CaseShown):
                break
            assert time.monotonic() < deadline, f"the hub has no case {consult}"
            await asyncio.sleep(0.2)
        shown = await self.until(
            console.CaseShown,
            lambda shown: shown.case.card.consult == consult and wanted(shown.case),
            f"case {consult} as wanted",
            max(0.1, deadline - time.monotonic()),
            since,
        )
        await self.send(console.LeaveCase(consult=consult))
        return shown.case

    async def file(self, digest: str) -> bytes:
        answer = await self.http.get(f"/api/files/{digest}")
        assert answer.status_code == 200, answer.text
        return answer.content

    async def advise(self, consult: str, text: str, voice: bytes = b"", mime: str = "audio/ogg") -> str:
        files = {"voice": ("reply", voice, mime)} if voice else None
        answer = await self.http.post(f"/api/cases/{consult}/advice", data={"text": text}, files=files)
        assert answer.status_code == 201, answer.text
        advice: str = answer.json()["advice"]
        return advice

    async def _run(self) -> None:
        url = self._url.replace("http", "ws", 1) + "/console/ws"
        while True:
            cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)
            try:
                async with connect(
                    url, ssl=self._ssl, origin=websockets.Origin(self._url), additional_headers={"Cookie": cookies},
                    proxy=None, max_size=2**22, open_timeout=5,
                ) as opened:  # fmt: skip
                    async for frame in opened:
                        async with self._changed:
                            self._socket = opened
                            self.got.append(_decode(frame))
                            self.got_at.append(time.time())
                            self._changed.notify_all()
            except (OSError, websockets.WebSocketException, TimeoutError):
                await asyncio.sleep(0.1)
            finally:
                self._socket = None
