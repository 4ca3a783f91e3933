"""Keeps broker and web server on the certificates as they stand: a kiosk that was revoked, or whose certificate has
run out, is cut off within seconds.

Whatever changes them (a command, a technician at the console, another hub process) writes it down, in the database or
in the CA's folder; each hub process looks every two seconds and brings the broker after it. To cut a connection the hub
takes over its session: MQTT ends the older of two with one client id, and no kiosk can choose another's. That order
(the list, the reload, the cut) leaves no moment in which the kiosk could come back; a process killed between does it
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub import broker
from hub.authority import Authority
from hub.config import HubSettings
from hub.outgoing import Outgoing
from hub.records import Certificate, Kiosk
from hub.sealing import BUILT_MS

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
RENEWAL_EVERY_S = 3600.0  # whether the hub's own certificate runs out


class CertificateWatch:
    """`do` runs work in the database's thread, see `Switchboard.do`; `renewed` is called when the hub's own certificate
    has changed."""

    def __init__(
        self,
        settings: HubSettings,
        authority: Authority,
        names: list[str],
        do: Callable[..., Awaitable[Any]],
        now_ms: Callable[[], int],
        renewed: Callable[[], None],
    ) -> None:
        self._settings, self._authority, self._names = settings, authority, names
        self._do, self._now_ms, self._renewed = do, now_ms, renewed
        self._looked = False

    async def run(self) -> None:
        """For ever."""
        failed, next_renewal = False, 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() >= next_renewal:
                    next_renewal = loop.time() + RENEWAL_EVERY_S
                    await asyncio.to_thread(self._authority.ensure, self._names)
                await self._look()
                failed = False
            except Exception as error:
                if not failed:
                    log.error("certificates not looked after, trying on: %s", error or type(error).__name__)
                failed = True
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        to_cut: dict[str, tuple[str, bool]] = await self._do(_to_cut, self._now_ms())
        if revoked := [int(serial, 16) for serial, (_, its) in to_cut.items() if its]:
            await asyncio.to_thread(self._authority.revoke, revoked)
        own_before = self._own_certificate()
        changed = await asyncio.to_thread(broker.copy_certificates, self._settings.broker_dir, self._authority)
        if changed:  # a change of CA that was killed half-way: without a list for each, the broker lets nobody in
            await asyncio.to_thread(self._authority.ensure, self._names)
            await asyncio.to_thread(broker.copy_certificates, self._settings.broker_dir, self._authority)
        if changed or to_cut or not self._looked:  # a process before this one may have died before it told the broker
            broker.reload(self._settings.broker_dir)
            self._looked = True
        if self._own_certificate() != own_before:
            self._renewed()
        if to_cut:  # before the cut: new hardware of one that was replaced comes again at once, and is here then
            await self._do(_note_gone, {kiosk for kiosk, _ in to_cut.values()}, self._now_ms())
        for kiosk, revoked_ in sorted(set(to_cut.values())):
            await self._cut(kiosk)
            why = "was revoked" if revoked_ else "has run out"
            log.warning("kiosk cut off, its certificate %s kiosk=%s", why, kiosk)
        if to_cut:
            await self._do(_note_cut, list(to_cut), self._now_ms())

    def _own_certificate(self) -> bytes:
        path = self._settings.broker_dir / "hub.pem"
        return path.read_bytes() if path.exists() else b""

    async def _cut(self, kiosk: str) -> None:
        settings = self._settings.broker
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        async with aiomqtt.Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=self._settings.broker_password_path.read_text(encoding="utf-8").strip(),
            identifier=kiosk,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=properties,
            tls_context=broker.tls_context(settings),
        ) as client:
            await client.publish(wire.up_topic(kiosk, "s"), b"", qos=1, retain=True)  # "online" is true no more


def _to_cut(session: Session, _out: Outgoing, now_ms: int) -> dict[str, tuple[str, bool]]:
    """`(kiosk, whether it was revoked)` by the serial number of its certificate. One that has run out while a newer one
    holds is no reason; nor is one by a clock that is not set."""
    run_out = and_(
        Certificate.expires_at <= (now_ms if now_ms > BUILT_MS else 0),
        Certificate.kiosk_id.not_in(
            select(Certificate.kiosk_id).where(Certificate.revoked_at == 0, Certificate.expires_at > now_ms)
        ),
    )
    rows = session.execute(
        select(Certificate.serial, Certificate.kiosk_id, Certificate.revoked_at).where(
            Certificate.cut_at == 0, or_(Certificate.revoked_at > 0, run_out)
        )
    )
    return {serial: (kiosk, revoked_at > 0) for serial, kiosk, revoked_at in rows}


def _note_gone(session: Session, out: Outgoing, kiosks: set[str], now_ms: int) -> None:
    session.execute(update(Kiosk).where(Kiosk.id.in_(kiosks), Kiosk.online).values(online=False, gone_since=now_ms))
    out.room = True


def _note_cut(session: Session, _out: Outgoing, serials: list[str], now_ms: int) -> None:
    session.execute(update(Certificate).where(Certificate.serial.in_(serials)).values(cut_at=now_ms))
