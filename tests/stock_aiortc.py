"""Puts aiortc back as it was after a test that installed the kit's own parts: the far ends of other tests are stock."""

from __future__ import annotations

import copy
from typing import Any

import aioice.ice
import aioice.stun
import aiortc.codecs
import aiortc.rtcicetransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import pytest

_REPLACED: tuple[tuple[Any, str], ...] = (
    (aioice.ice, "get_host_addresses"),
    (aioice.stun, "parse_message"),
    (aiortc.rtcicetransport, "Connection"),
    (aiortc.rtcicetransport, "connection_kwargs"),
    (aiortc.rtcpeerconnection, "RTCDtlsTransport"),
    (aiortc.rtcrtpreceiver, "StreamStatistics"),
    (aiortc.rtcrtpsender, "get_encoder"),
    (aiortc.rtcrtpsender, "RTP_HISTORY_SIZE"),
)


def put_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before `hooks.install()`."""
    for module, name in _REPLACED:
        monkeypatch.setattr(module, name, getattr(module, name))
    for kind in ("audio", "video"):
        monkeypatch.setitem(aiortc.codecs.HEADER_EXTENSIONS, kind, list(aiortc.codecs.HEADER_EXTENSIONS[kind]))
        monkeypatch.setitem(aiortc.codecs.CODECS, kind, copy.deepcopy(aiortc.codecs.CODECS[kind]))
