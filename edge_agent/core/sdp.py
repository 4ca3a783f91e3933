"""Session descriptions as they travel: only what the kit uses, in ≤ 800 bytes.

Pure: text in, bytes out, and back. `compress` keeps Opus and its repetition (RED), VP8 with its retransmissions, the
sha-256 fingerprint, a header extension, the data channels and the candidates, all in one canonical order; then raw
deflate with a dictionary that holds the canonical text. What comes out of `decompress` is an ordinary SDP that aiortc,
Chromium and Firefox take. Bytes from outside raise SdpError and nothing else, and can say nothing that the canonical
form does not.
"""

from __future__ import annotations

import ipaddress
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.core import transport_cc
from edge_agent.core.wire import MAX_SDP_BYTES

FORMAT = 3  # first byte on the wire; a new dictionary is a new format
MAX_TEXT_BYTES = 16 * 1024  # a browser's answer has 2 to 6 kB; more is not one, or a decompression bomb
MAX_CANDIDATES = 40
MAX_MEDIA = 4
MOST_PTIME_MS = 1000
SCTP_PORT, MAX_MESSAGE_BYTES = 5000, 65536  # of data channels (RFC 8841): of no other port, and no longer ones

# What a payload type may be. RFC 7587 (Opus), RFC 2198 (RED), RFC 7741 (VP8), RFC 4588 (retransmission).
_CODECS = {"audio": ("opus/48000/2", "red/48000/2"), "video": ("VP8/90000", "rtx/90000")}
_COMPANIONS = ("red/", "rtx/")  # of a codec, never alone
_FEEDBACK = ("goog-remb", "nack", "nack pli", "transport-cc")
# Without sdes:mid, which would lengthen every packet to say what its SSRC says.
_EXTENSIONS = (transport_cc.URI,)
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_SETUPS = ("actpass", "active", "passive")
_CNAME = "k"
# A stream for each: of one, a browser holds the sound back until the picture has come, by seconds on a thin link.
_STREAMS = {"audio": "k", "video": "p"}

_M_LINE = re.compile(r"m=(audio|video) (\d{1,5}) UDP/TLS/RTP/SAVPF (\d{1,3}(?: \d{1,3})*)")
_DATA_LINE = re.compile(r"m=(application) (\d{1,5}) UDP/DTLS/SCTP webrtc-datachannel")
_MID = re.compile(r"[A-Za-z0-9]{1,16}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,32}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,64}")
_FINGERPRINT = re.compile(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}")
_FMTP = re.compile(r"[a-z0-9-]{1,32}=[A-Za-z0-9/.-]{1,32}(?:;[a-z0-9-]{1,32}=[A-Za-z0-9/.-]{1,32}){0,7}")
_RED_FMTP = re.compile(r"\d{1,3}(?:/\d{1,3}){1,4}")
_MDNS_NAME = re.compile(r"[A-Za-z0-9-]{1,63}\.local")

_CANDIDATE_WORTH = {"host": 0, "srflx": 1, "relay": 0}  # a relay and the LAN each may be the only way


class SdpError(ValueError):
    """Not a session description that the kit can use."""


@dataclass(frozen=True)
class VoiceWish:
    """How the far end is asked to send its voice (RFC 7587 and RFC 4566). Browsers obey."""

    bps: int
    frame_ms: int
    playback_hz: int  # twice the highest tone that is worth its bits
    fec: bool
    dtx: bool
    repeated: bool  # RED


@dataclass(frozen=True)
class _Candidate:
    foundation: str
    transport: str
    priority: int
    address: str
    port: int
    type: str
    tcp_type: str = ""

    def line(self, foundation: int) -> str:
        text = f"a=candidate:{foundation} 1 {self.transport} {self.priority} {self.address} {self.port} typ {self.type}"
        if self.type != "host":
            text += " raddr 0.0.0.0 rport 0"  # the base's address is nobody's business; grammar wants one
        if self.tcp_type:
            text += f" tcptype {self.tcp_type}"
        return text


@dataclass
class _Media:
    kind: str
    payload_types: list[int]
    mid: str = ""
    direction: str = "sendrecv"
    extensions: dict[str, int] = field(default_factory=dict)
    ssrcs: list[int] = field(default_factory=list)
    codecs: dict[int, str] = field(default_factory=dict)
    feedback: dict[int, set[str]] = field(default_factory=dict)
    fmtp: dict[int, str] = field(default_factory=dict)
    ptime_ms: dict[str, int] = field(default_factory=dict)  # "ptime", "maxptime"


@dataclass
class _Transport:
    ufrag: str = ""
    password: str = ""
    fingerprint: str = ""
    setup: str = ""
    candidates: list[_Candidate] = field(default_factory=list)


def compress(sdp: str, voice: VoiceWish | None = None, most_kbps: int | None = None) -> bytes:
    """At most MAX_SDP_BYTES; the least useful candidates go first where all do not fit. Raises SdpError.

    `voice` and `most_kbps` (of all together) go into the description: they ask the far end to send so.
    """
    transport, media = _parse(sdp)
    for section in media:
        if section.kind == "audio" and voice is not None:
            _ask_for_voice(section, voice)
        elif section.kind == "video" and most_kbps is not None:
            section.fmtp[_main(section)] = f"x-google-start-bitrate={most_kbps};x-google-max-bitrate={most_kbps}"
    while True:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
        data = bytes([FORMAT]) + deflater.compress(_canonical(transport, media).encode()) + deflater.flush()
        if len(data) <= MAX_SDP_BYTES:
            return data
        if not transport.candidates:
            raise SdpError(f"a session description of {len(data)} bytes, at most {MAX_SDP_BYTES} travel")
        transport.candidates.remove(_least_useful(transport.candidates))


def decompress(data: bytes) -> str:
    """The canonical SDP. Raises SdpError."""
    if not data or data[0] != FORMAT:
        raise SdpError(
            f"a session description of format {data[0] if data else 'none'}, known here is {FORMAT}: kiosk and hub are "
            "of different versions, bring the older one up to date"
        )
    if len(data) > MAX_SDP_BYTES:
        raise SdpError(f"a session description of {len(data)} bytes")
    inflater = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        text = inflater.decompress(data[1:], MAX_TEXT_BYTES).decode("ascii")
    except (zlib.error, UnicodeDecodeError) as error:
        raise SdpError(f"not a session description: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise SdpError("a session description that is cut short, or too long")
    if _canonical(*_parse(text)) != text:
        raise SdpError("a session description with more in it than the kit uses")
    return text


def takes_red(sdp: str) -> bool:
    """Whether repeated frames can be sent to whoever made this description."""
    return any(codec.startswith("red/") for section in _parse(sdp)[1] for codec in section.codecs.values())


def _ask_for_voice(media: _Media, wish: VoiceWish) -> None:
    main = _main(media)
    media.fmtp[main] = (
        f"maxaveragebitrate={wish.bps};maxplaybackrate={wish.playback_hz};minptime={wish.frame_ms};stereo=0;"
        f"usedtx={int(wish.dtx)};useinbandfec={int(wish.fec)}"
    )
    media.ptime_ms = {"ptime": wish.frame_ms, "maxptime": wish.frame_ms}
    # A browser sends what the offer names first of what both know.
    media.payload_types.sort(key=lambda number: (number == main) == wish.repeated)


def _main(media: _Media) -> int:
    return next(number for number in media.payload_types if not media.codecs[number].startswith(_COMPANIONS))


def _parse(sdp: str) -> tuple[_Transport, list[_Media]]:
    if len(sdp) > MAX_TEXT_BYTES:
        raise SdpError(f"a session description of {len(sdp)} characters")
    transport = _Transport()
    media: list[_Media] = []
    for line in sdp.splitlines():
        if line.startswith("m="):
            media.append(_parse_m_line(line))
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            if (read := _TRANSPORT_ATTRIBUTES.get(name)) is not None:
                read(transport, value)
            elif media and (read_media := _attributes_of(media[-1]).get(name)) is not None:
                read_media(media[-1], value)
            elif media and name in _DIRECTIONS:
                media[-1].direction = name
    if not 0 < len(media) <= MAX_MEDIA:
        raise SdpError(f"a session description with {len(media)} media sections")
    for name, value in (("ice-ufrag", transport.ufrag), ("ice-pwd", transport.password),
                        ("sha-256 fingerprint", transport.fingerprint), ("setup", transport.setup)):  # fmt: skip
        if not value:
            raise SdpError(f"a session description without {name}")
    for index, section in enumerate(media):
        section.mid = section.mid or str(index)
        if section.kind != "application":
            _keep_known_codecs(section)
    if len({section.mid for section in media}) != len(media):
        raise SdpError("two media sections with one mid")
    if sum(section.kind == "application" for section in media) > 1:
        raise SdpError("two media sections for data channels")
    return transport, media


def _parse_m_line(line: str) -> _Media:
    match = _M_LINE.fullmatch(line.strip()) or _DATA_LINE.fullmatch(line.strip())
    if match is None:
        raise SdpError(f"a media section that is not used here: {line[:60]!r}")
    if int(match[2]) == 0:
        raise SdpError(f"a session description that refuses {match[1]}")
    if match.re is _DATA_LINE:
        return _Media("application", [])
    return _Media(match[1], [_number(text, 127) for text in match[3].split()])


def _keep_known_codecs(media: _Media) -> None:
    """One codec of a kind, with what goes with it: whoever lists more of them prefers the first."""
    kinds = _CODECS[media.kind]
    listed = [number for number in dict.fromkeys(media.payload_types) if media.codecs.get(number, "") in kinds]
    main = next((number for number in listed if not media.codecs[number].startswith(_COMPANIONS)), None)
    if main is None:
        raise SdpError(f"a session description without {kinds[0].partition('/')[0]}")

    def belongs(number: int) -> bool:
        said = media.fmtp.get(number, "")
        if media.codecs[number].startswith("rtx/"):
            return said == f"apt={main}"
        return _RED_FMTP.fullmatch(said) is not None and set(said.split("/")) == {str(main)}

    companion = next(
        (number for number in listed if media.codecs[number].startswith(_COMPANIONS) and belongs(number)), None
    )
    media.payload_types = [number for number in listed if number in (main, companion)]
    media.feedback = {main: media.feedback.get(main, set())}
    del media.ssrcs[1 if companion is None or media.kind == "audio" else 2 :]


def _canonical(transport: _Transport, media: list[_Media]) -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    lines.append("a=group:BUNDLE " + " ".join(section.mid for section in media))
    lines.append("a=msid-semantic:WMS *")
    # Said anew in each section, as aiortc reads a bundle's last one and browsers its first; repeats cost a few bytes.
    shared = [f"a=ice-ufrag:{transport.ufrag}", f"a=ice-pwd:{transport.password}"]
    shared += [f"a=fingerprint:sha-256 {transport.fingerprint}", f"a=setup:{transport.setup}"]
    foundations: dict[str, int] = {}
    for candidate in transport.candidates:
        shared.append(candidate.line(foundations.setdefault(candidate.foundation, len(foundations) + 1)))
    if transport.candidates:
        # Nothing is trickled. Without any candidate it is left out, so that the far end waits to be found.
        shared.append("a=end-of-candidates")
    for section in media:
        lines += _media_lines(section) + shared
    return "\r\n".join(lines) + "\r\n"


def _media_lines(media: _Media) -> list[str]:
    if media.kind == "application":
        return [
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{media.mid}",
            f"a=sctp-port:{SCTP_PORT}",
            f"a=max-message-size:{MAX_MESSAGE_BYTES}",
        ]
    lines = [
        f"m={media.kind} 9 UDP/TLS/RTP/SAVPF " + " ".join(map(str, media.payload_types)),
        "c=IN IP4 0.0.0.0",
        f"a={media.direction}",
        f"a=mid:{media.mid}",
        "a=rtcp-mux",
    ]
    lines += [f"a=extmap:{media.extensions[uri]} {uri}" for uri in _EXTENSIONS if uri in media.extensions]
    for number in media.payload_types:
        lines.append(f"a=rtpmap:{number} {media.codecs[number]}")
        lines += [f"a=rtcp-fb:{number} {kind}" for kind in _FEEDBACK if kind in media.feedback.get(number, ())]
        if number in media.fmtp:
            lines.append(f"a=fmtp:{number} {media.fmtp[number]}")
    lines += [f"a={name}:{media.ptime_ms[name]}" for name in ("ptime", "maxptime") if name in media.ptime_ms]
    if media.direction in ("sendrecv", "sendonly"):
        lines.append(f"a=msid:{_STREAMS[media.kind]} {media.kind}")
        if len(media.ssrcs) == 2:
            lines.append(f"a=ssrc-group:FID {media.ssrcs[0]} {media.ssrcs[1]}")
        lines += [f"a=ssrc:{ssrc} cname:{_CNAME}" for ssrc in media.ssrcs]
    return lines


def _least_useful(candidates: list[_Candidate]) -> _Candidate:
    """TCP before UDP, mirrored addresses before others, IPv6 before IPv4 where there are more of them."""
    counts = {6: 0, 4: 0}
    for candidate in candidates:
        counts[_family(candidate)] += 1

    def worth(indexed: tuple[int, _Candidate]) -> tuple[bool, int, int, int]:
        index, candidate = indexed
        return candidate.transport == "tcp", _CANDIDATE_WORTH[candidate.type], counts[_family(candidate)], index

    return max(enumerate(candidates), key=worth)[1]


def _family(candidate: _Candidate) -> int:
    return 6 if ":" in candidate.address else 4


# --- attributes


def _read_ufrag(transport: _Transport, value: str) -> None:
    transport.ufrag = transport.ufrag or _matching(_UFRAG, value, "ice-ufrag")


def _read_password(transport: _Transport, value: str) -> None:
    transport.password = transport.password or _matching(_PASSWORD, value, "ice-pwd")


def _read_fingerprint(transport: _Transport, value: str) -> None:
    algorithm, _, digest = value.strip().partition(" ")
    if algorithm.lower() == "sha-256" and not transport.fingerprint:
        transport.fingerprint = _matching(_FINGERPRINT, digest.upper(), "fingerprint")


def _read_setup(transport: _Transport, value: str) -> None:
    if value.strip() not in _SETUPS:
        raise SdpError(f"setup is {value[:20]!r}")
    transport.setup = transport.setup or value.strip()


def _read_candidate(transport: _Transport, value: str) -> None:
    """Keeps what can be reached; one of two with the same address goes."""
    fields = value.split()
    if len(fields) < 8 or fields[1] != "1" or fields[6] != "typ" or fields[7] not in _CANDIDATE_WORTH:
        return
    tcp_type = ""
    if fields[2].lower() == "tcp":
        options = dict(zip(fields[8::2], fields[9::2], strict=False))
        tcp_type = options.get("tcptype", "")
        if tcp_type not in ("passive", "so"):  # an active one listens nowhere
            return
    elif fields[2].lower() != "udp":
        return
    if (address := _address(fields[4])) is None:
        return
    candidate = _Candidate(
        foundation=fields[0],
        transport=fields[2].lower(),
        priority=_number(fields[3], 2**32 - 1),
        address=address,
        port=_number(fields[5], 65535),
        type=fields[7],
        tcp_type=tcp_type,
    )
    where = (candidate.transport, candidate.address, candidate.port)
    if where in ((c.transport, c.address, c.port) for c in transport.candidates):
        return
    if len(transport.candidates) == MAX_CANDIDATES:
        transport.candidates.remove(_least_useful(transport.candidates))
    transport.candidates.append(candidate)


def _read_mid(media: _Media, value: str) -> None:
    media.mid = _matching(_MID, value, "mid")


def _read_extmap(media: _Media, value: str) -> None:
    number, _, uri = value.partition(" ")
    uri = uri.partition(" ")[0]
    if uri in _EXTENSIONS:
        media.extensions[uri] = _number(number.partition("/")[0], 14)


def _read_rtpmap(media: _Media, value: str) -> None:
    number, _, codec = value.partition(" ")
    for known in _CODECS[media.kind]:
        if codec.strip().lower() == known.lower():
            media.codecs[_number(number, 127)] = known


def _read_feedback(media: _Media, value: str) -> None:
    number, _, kind = value.partition(" ")
    if kind.strip() in _FEEDBACK:
        for each in media.payload_types if number == "*" else [_number(number, 127)]:
            media.feedback.setdefault(each, set()).add(kind.strip())


def _read_fmtp(media: _Media, value: str) -> None:
    number, _, parameters = value.partition(" ")
    parameters = parameters.replace("; ", ";").strip()
    if _FMTP.fullmatch(parameters) or _RED_FMTP.fullmatch(parameters):
        media.fmtp[_number(number, 127)] = parameters


def _read_ptime(media: _Media, value: str) -> None:
    media.ptime_ms["ptime"] = _number(value.strip(), MOST_PTIME_MS)


def _read_sctp_port(media: _Media, value: str) -> None:
    if _number(value.strip(), 65535) != SCTP_PORT:
        raise SdpError(f"data channels on SCTP port {value.strip()}, {SCTP_PORT} is in use here")


def _read_maxptime(media: _Media, value: str) -> None:
    media.ptime_ms["maxptime"] = _number(value.strip(), MOST_PTIME_MS)


def _read_ssrc(media: _Media, value: str) -> None:
    ssrc = _number(value.partition(" ")[0], 2**32 - 1)
    if ssrc not in media.ssrcs and len(media.ssrcs) < 2:
        media.ssrcs.append(ssrc)


def _read_ssrc_group(media: _Media, value: str) -> None:
    group = value.split()
    if group[:1] == ["FID"] and len(group) == 3:
        media.ssrcs[:] = [_number(text, 2**32 - 1) for text in group[1:]]


_TRANSPORT_ATTRIBUTES: dict[str, Callable[[_Transport, str], None]] = {
    "ice-ufrag": _read_ufrag,
    "ice-pwd": _read_password,
    "fingerprint": _read_fingerprint,
    "setup": _read_setup,
    "candidate": _read_candidate,
}
_MEDIA_ATTRIBUTES: dict[str, Callable[[_Media, str], None]] = {
    "mid": _read_mid,
    "extmap": _read_extmap,
    "rtpmap": _read_rtpmap,
    "rtcp-fb": _read_feedback,
    "fmtp": _read_fmtp,
    "ptime": _read_ptime,
    "maxptime": _read_maxptime,
    "ssrc": _read_ssrc,
    "ssrc-group": _read_ssrc_group,
}


_DATA_ATTRIBUTES: dict[str, Callable[[_Media, str], None]] = {"mid": _read_mid, "sctp-port": _read_sctp_port}


def _attributes_of(media: _Media) -> dict[str, Callable[[_Media, str], None]]:
    return _DATA_ATTRIBUTES if media.kind == "application" else _MEDIA_ATTRIBUTES


def _matching(pattern: re.Pattern[str], value: str, what: str) -> str:
    value = value.strip()
    if pattern.fullmatch(value) is None:
        raise SdpError(f"{what} is {value[:40]!r}")
    return value


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise SdpError(f"found {text[:20]!r} where a number up to {most} belongs")
    return int(text)


def _address(text: str) -> str | None:
    """None for what only a name server could tell."""
    if _MDNS_NAME.fullmatch(text):
        return text
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


# What is likely stands last: distances are shorter there. Never edited within a FORMAT.
_DICTIONARY = "\r\n".join(
    [
        "a=recvonly", "a=sendonly", "a=inactive", " tcptype passive", " 1 tcp 1518280447 ",
        "a=candidate:3 1 udp 1694498815 ", "a=candidate:3 1 udp 1677729535 ", "a=candidate:4 1 udp 16777215 ",
        " typ srflx raddr 0.0.0.0 rport 0", " typ relay raddr 0.0.0.0 rport 0",
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0 1 2", "a=msid-semantic:WMS *",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:2", f"a=sctp-port:{SCTP_PORT}",
        f"a=max-message-size:{MAX_MESSAGE_BYTES}",
        "m=video 9 UDP/TLS/RTP/SAVPF 97 98", "c=IN IP4 0.0.0.0", "a=sendrecv", "a=mid:1", "a=rtcp-mux",
        f"a=extmap:3 {transport_cc.URI}", "a=rtcp-fb:97 transport-cc",
        "a=rtpmap:97 VP8/90000", "a=fmtp:97 x-google-start-bitrate=",
        "a=rtcp-fb:97 goog-remb", "a=rtcp-fb:97 nack", "a=rtcp-fb:97 nack pli",
        "a=rtpmap:98 rtx/90000", "a=fmtp:98 apt=97", "a=msid:p video", "a=ssrc-group:FID ",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96 110", "m=audio 9 UDP/TLS/RTP/SAVPF 110 96", "c=IN IP4 0.0.0.0", "a=sendrecv",
        "a=mid:0", "a=rtcp-mux", "a=rtpmap:96 opus/48000/2", "a=fmtp:96 minptime=10;useinbandfec=1",
        "a=rtpmap:110 red/48000/2", "a=fmtp:110 96/96", "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 maxaveragebitrate=", "000;maxplaybackrate=8000", "000;maxplaybackrate=16000", ";minptime=20",
        ";minptime=60;stereo=0;usedtx=1;useinbandfec=0", "a=ptime:20", "a=maxptime:20", "a=ptime:60", "a=maxptime:60",
        f"a=extmap:3 {transport_cc.URI}", "a=rtcp-fb:96 transport-cc", "a=msid:k audio",
        "a=ssrc:", " cname:k", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:sha-256 ",
        "a=setup:actpass", "a=setup:passive", "a=setup:active",
        "a=candidate:1 1 udp 2113937151 192.168.1.", "a=candidate:2 1 udp 2122260223 10.0.0.",
        "a=candidate:1 1 udp 2122194687 172.16.", "a=candidate:1 1 udp 2130706431 192.168.",
        " typ host", "a=end-of-candidates", "",
    ]
).encode()  # fmt: skip
