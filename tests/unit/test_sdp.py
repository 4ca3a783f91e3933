"""Session descriptions: what travels, what comes back, and what may not hurt."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import sdp
from edge_agent.core.wire import MAX_SDP_BYTES

FINGERPRINT = ":".join(f"{number:02X}" for number in range(3, 35))

CHROMIUM_ANSWER = f"""v=0
o=- 6116516012385190347 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS 0dd3bb5c-5e8f-4e35-9f2e-b1fd0d0d8b2a
m=audio 51472 UDP/TLS/RTP/SAVPF 96
c=IN IP4 192.168.1.20
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 192.168.1.20 51472 typ host generation 0 network-id 1 network-cost 10
a=candidate:1853887674 1 udp 2122194687 fd12:3456:789a:1:1234:5678:9abc:def0 47161 typ host generation 0 network-id 2
a=candidate:842163049 1 udp 1677729535 203.0.113.9 51472 typ srflx raddr 192.168.1.20 rport 51472 generation 0
a=candidate:435653019 1 tcp 1518280447 192.168.1.20 9 typ host tcptype active generation 0 network-id 1
a=candidate:435653019 2 udp 2122260222 192.168.1.20 51473 typ host generation 0
a=ice-ufrag:wYJP
a=ice-pwd:TGNJHoZDbEWTqBdXZ8zW/Ttu
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:active
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:0dd3bb5c-5e8f-4e35-9f2e-b1fd0d0d8b2a 4f7e3a8c-56f2-4d7c-a7a9-3a3f3a7e4f4c
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 opus/48000/2
a=fmtp:96 minptime=10;useinbandfec=1
a=ssrc:2231627014 cname:4TOk42mSjXCkVIa6
m=video 9 UDP/TLS/RTP/SAVPF 97 98
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:wYJP
a=ice-pwd:TGNJHoZDbEWTqBdXZ8zW/Ttu
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:active
a=mid:1
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=sendrecv
a=msid:0dd3bb5c-5e8f-4e35-9f2e-b1fd0d0d8b2a 8b9f22c1-6c1f-4b3c-9c57-5a24d81c1e1f
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:97 VP8/90000
a=rtcp-fb:97 goog-remb
a=rtcp-fb:97 ccm fir
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
a=rtpmap:98 rtx/90000
a=fmtp:98 apt=97
a=ssrc-group:FID 3846592934 3291458370
a=ssrc:3846592934 cname:4TOk42mSjXCkVIa6
a=ssrc:3846592934 msid:0dd3bb5c-5e8f-4e35-9f2e-b1fd0d0d8b2a 8b9f22c1-6c1f-4b3c-9c57-5a24d81c1e1f
a=ssrc:3291458370 cname:4TOk42mSjXCkVIa6
"""

FIREFOX_ANSWER = f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 5521930443331170186 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:sha-256 {FINGERPRINT.lower()}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=candidate:0 1 UDP 2122252543 6f2f3f0e-9c07-4a3c-8c5a-1c9f4e6f7a51.local 38216 typ host
a=candidate:2 1 TCP 2105524479 6f2f3f0e-9c07-4a3c-8c5a-1c9f4e6f7a51.local 9 typ host tcptype active
a=sendrecv
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:96 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=ice-pwd:46a0dcd4a8f1cd4d62f9b4a4a2d5f8d1
a=ice-ufrag:5a8f2a9c
a=mid:0
a=msid:{{b1d4c3ac-0000-4000-8000-000000000000}} {{0e1ab4b5-0000-4000-8000-000000000000}}
a=rtcp-mux
a=rtpmap:96 opus/48000/2
a=setup:active
a=ssrc:1402683243 cname:{{d6a1c6ac-0000-4000-8000-000000000000}}
m=video 9 UDP/TLS/RTP/SAVPF 97 98
c=IN IP4 0.0.0.0
a=sendrecv
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:97 max-fs=12288;max-fr=60
a=fmtp:98 apt=97
a=ice-pwd:46a0dcd4a8f1cd4d62f9b4a4a2d5f8d1
a=ice-ufrag:5a8f2a9c
a=mid:1
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
a=rtcp-mux
a=rtpmap:97 VP8/90000
a=rtpmap:98 rtx/90000
a=setup:active
a=ssrc:3390421123 cname:{{d6a1c6ac-0000-4000-8000-000000000000}}
"""


def with_candidates(lines: list[str]) -> str:
    kept = [line for line in CHROMIUM_ANSWER.splitlines() if not line.startswith("a=candidate")]
    at = kept.index("a=rtcp:9 IN IP4 0.0.0.0") + 1
    return "\r\n".join(kept[:at] + [f"a=candidate:{line}" for line in lines] + kept[at:]) + "\r\n"


def test_a_browsers_answer_keeps_what_the_kit_uses() -> None:
    data = sdp.compress(CHROMIUM_ANSWER)
    lines = sdp.decompress(data).splitlines()

    assert len(data) < 300
    assert lines.count("a=ice-ufrag:wYJP") == lines.count("a=ice-pwd:TGNJHoZDbEWTqBdXZ8zW/Ttu") == 2
    assert lines.count(f"a=fingerprint:sha-256 {FINGERPRINT}") == lines.count("a=setup:active") == 2
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96" in lines
    assert "a=fmtp:96 minptime=10;useinbandfec=1" in lines
    assert "m=video 9 UDP/TLS/RTP/SAVPF 97 98" in lines
    assert "a=fmtp:98 apt=97" in lines
    assert "a=ssrc-group:FID 3846592934 3291458370" in lines
    assert [line for line in lines if line.startswith("a=rtcp-fb")] == [
        "a=rtcp-fb:97 goog-remb",
        "a=rtcp-fb:97 nack",
        "a=rtcp-fb:97 nack pli",
    ]
    assert list(dict.fromkeys(line for line in lines if line.startswith("a=candidate"))) == [
        "a=candidate:1 1 udp 2122260223 192.168.1.20 51472 typ host",
        "a=candidate:2 1 udp 2122194687 fd12:3456:789a:1:1234:5678:9abc:def0 47161 typ host",
        "a=candidate:3 1 udp 1677729535 203.0.113.9 51472 typ srflx raddr 0.0.0.0 rport 0",
    ]


DATA = f"""m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:wYJP
a=ice-pwd:TGNJHoZDbEWTqBdXZ8zW/Ttu
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:active
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
"""
WITH_DATA = CHROMIUM_ANSWER.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + DATA


def test_data_channels_travel() -> None:
    data = sdp.compress(WITH_DATA)
    lines = sdp.decompress(data).splitlines()
    assert len(data) < len(sdp.compress(CHROMIUM_ANSWER)) + 20, "it grew: look at the dictionary"
    at = lines.index("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
    assert lines[at + 2 : at + 5] == ["a=mid:2", "a=sctp-port:5000", "a=max-message-size:65536"]
    assert "a=ice-ufrag:wYJP" in lines[at:]
    for found, put, said in (
        ("sctp-port:5000", "sctp-port:5001", "port 5001"),
        ("application 9", "application 0", "refuses application"),
    ):
        with pytest.raises(sdp.SdpError, match=said):
            sdp.compress(WITH_DATA.replace(found, put))
    with pytest.raises(sdp.SdpError, match="two media sections for data"):
        sdp.compress(WITH_DATA + DATA.replace("mid:2", "mid:3"))


def test_another_format_is_told_of_as_another_version() -> None:
    with pytest.raises(sdp.SdpError, match="format 2, known here is 3: kiosk and hub are of different versions"):
        sdp.decompress(b"\x02" + sdp.compress(CHROMIUM_ANSWER)[1:])


WITH_RED = CHROMIUM_ANSWER.replace("SAVPF 96", "SAVPF 96 110").replace(
    "a=rtpmap:96 opus", "a=rtpmap:110 red/48000/2\na=fmtp:110 96/96\na=rtpmap:96 opus"
)
WISH = sdp.VoiceWish(bps=10_000, frame_ms=60, playback_hz=8_000, fec=False, dtx=True, repeated=False)


def test_repeated_frames_travel_with_the_codec_that_they_repeat() -> None:
    lines = sdp.decompress(sdp.compress(WITH_RED)).splitlines()
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96 110" in lines
    assert "a=fmtp:110 96/96" in lines
    assert sdp.takes_red(WITH_RED)
    assert not sdp.takes_red(CHROMIUM_ANSWER)

    of_another = sdp.decompress(sdp.compress(WITH_RED.replace("110 96/96", "110 111/111"))).splitlines()
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96" in of_another
    assert "red" not in "".join(of_another)


def test_the_far_end_is_asked_how_to_send() -> None:
    asked = sdp.compress(WITH_RED, WISH, 60)
    lines = sdp.decompress(asked).splitlines()

    assert len(asked) <= len(sdp.compress(WITH_RED)) + 40, "it grew: look at the dictionary"
    assert (
        "a=fmtp:96 maxaveragebitrate=10000;maxplaybackrate=8000;minptime=60;stereo=0;usedtx=1;useinbandfec=0" in lines
    )
    assert {"a=ptime:60", "a=maxptime:60", "a=fmtp:97 x-google-start-bitrate=60;x-google-max-bitrate=60"} <= set(lines)
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96 110" in lines

    repeated = sdp.decompress(sdp.compress(WITH_RED, replace(WISH, repeated=True))).splitlines()
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 110 96" in repeated
    assert "m=video 9 UDP/TLS/RTP/SAVPF 97 98" in repeated


def test_a_fingerprint_of_the_session_and_an_mdns_name_are_taken() -> None:
    lines = sdp.decompress(sdp.compress(FIREFOX_ANSWER)).splitlines()

    assert lines.count(f"a=fingerprint:sha-256 {FINGERPRINT}") == 2
    assert "a=candidate:1 1 udp 2122252543 6f2f3f0e-9c07-4a3c-8c5a-1c9f4e6f7a51.local 38216 typ host" in lines
    assert "a=fmtp:96 maxplaybackrate=48000;stereo=1;useinbandfec=1" in lines


def test_an_answer_without_candidates_leaves_the_end_open() -> None:
    assert "end-of-candidates" not in sdp.decompress(sdp.compress(with_candidates([])))


def test_of_many_codecs_one_a_kind_travels() -> None:
    text = CHROMIUM_ANSWER.replace("SAVPF 96", "SAVPF 9 0 96 63").replace("SAVPF 97 98", "SAVPF 100 97 98 99")
    text = text.replace("a=rtpmap:97 VP8", "a=rtpmap:100 H264/90000\na=rtpmap:97 VP8")
    lines = sdp.decompress(sdp.compress(text)).splitlines()

    assert "m=audio 9 UDP/TLS/RTP/SAVPF 96" in lines
    assert "m=video 9 UDP/TLS/RTP/SAVPF 97 98" in lines


def test_four_interfaces_with_both_families_fit_in_800_bytes() -> None:
    lines = []
    for n in range(4):
        v6 = f"2001:db8:{n * 7919:x}:4{n}:{n + 9:x}d1f:c0de:{n * 11337:x}:1"
        lines.append(f"{n} 1 udp 2122260223 192.168.{n * 37}.{n * 51} {40000 + n * 977} typ host")
        lines.append(f"1{n} 1 udp 2122194687 {v6} {51000 + n * 733} typ host")
        lines.append(f"2{n} 1 udp 1677729535 203.0.113.{n * 61} {30000 + n * 1201} typ srflx raddr 1.1.1.1 rport 1")
    lines.append("30 1 udp 33562623 198.51.100.4 55231 typ relay raddr 1.1.1.1 rport 1")
    data = sdp.compress(with_candidates(lines))

    assert len(data) <= 600, "it grew: look at the dictionary"
    assert sdp.decompress(data).count("a=candidate") == 2 * len(lines)


def test_the_least_useful_candidates_go_when_all_do_not_fit() -> None:
    noise = hashlib.sha512(b"addresses").digest()
    many = [
        f"{n} 1 udp 2122194687 2001:{noise[n]:x}{noise[n + 1]:x}:{noise[n + 2] * 251:x}:{noise[n + 3] * 241:x}::"
        f"{noise[n + 4] * 239:x}:{noise[n + 5] * 233:x} {20000 + noise[n + 6] * 173} typ host"
        for n in range(38)
    ]
    few = [
        "90 1 udp 2122260223 192.168.1.20 51472 typ host",
        "91 1 udp 33562623 198.51.100.4 55231 typ relay raddr 1.1.1.1 rport 1",
        "92 1 udp 1677729535 203.0.113.9 51472 typ srflx raddr 1.1.1.1 rport 1",
        "93 1 tcp 1518280447 192.168.1.20 4000 typ host tcptype passive",
    ]
    data = sdp.compress(with_candidates(few + many))
    text = sdp.decompress(data)

    assert len(data) <= MAX_SDP_BYTES
    assert "192.168.1.20 51472 typ host" in text
    assert "198.51.100.4 55231 typ relay" in text
    assert " tcp " not in text
    assert "203.0.113.9" not in text
    assert text.count("2001:") >= 10


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1", "without sha-256 fingerprint"),
        ("a=ice-pwd:TGNJHoZDbEWTqBdXZ8zW/Ttu", "a=ice-pwd:short", "ice-pwd"),
        ("a=setup:active", "a=setup:holdconn", "setup"),
        ("m=video 9", "m=video 0", "refuses video"),
        ("m=video 9 UDP/TLS/RTP/SAVPF", "m=text 9 UDP/TLS/RTP/SAVPF", "not used here"),
        ("a=rtpmap:97 VP8", "a=rtpmap:97 VP9", "without VP8"),
        ("a=mid:1", "a=mid:0", "one mid"),
        ("a=ssrc:2231627014", "a=ssrc:99999999999", "number"),
    ],
)
def test_what_the_kit_cannot_use_is_refused_with_a_reason(found: str, put: str, said: str) -> None:
    with pytest.raises(sdp.SdpError, match=said):
        sdp.compress(CHROMIUM_ANSWER.replace(found, put))


def deflated(text: bytes, dictionary: bytes = sdp._DICTIONARY) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return bytes([sdp.FORMAT]) + deflater.compress(text) + deflater.flush()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04" + sdp.compress(CHROMIUM_ANSWER)[1:],
        sdp.compress(CHROMIUM_ANSWER)[:-1],
        sdp.compress(CHROMIUM_ANSWER) + b"\x00",
        deflated(b"a" * 500_000),  # a bomb: half a megabyte in less than 800 bytes
        deflated(CHROMIUM_ANSWER.encode()),  # not canonical
        deflated(b"\xff\xfe"),
        deflated(b"m=audio 9 UDP/TLS/RTP/SAVPF " + b"1" * 4000),
        deflated(sdp.decompress(sdp.compress(CHROMIUM_ANSWER)).encode() + b"a=crypto:1 x\r\n"),
    ],
    ids=["empty", "newer", "cut", "longer", "bomb", "not canonical", "not text", "long m-line", "more"],
)
def test_garbage_raises_sdp_error(data: bytes) -> None:
    with pytest.raises(sdp.SdpError):
        sdp.decompress(data)


@given(st.binary(max_size=1000))
def test_any_bytes_raise_sdp_error_or_are_canonical(data: bytes) -> None:
    for candidate in (data, bytes([sdp.FORMAT]) + data):
        try:
            text = sdp.decompress(candidate)
        except sdp.SdpError:
            continue
        assert sdp.decompress(sdp.compress(text)) == text


@given(
    st.lists(st.sampled_from(WITH_RED.splitlines() + FIREFOX_ANSWER.splitlines() + DATA.splitlines()), max_size=80),
    st.data(),
)
def test_any_mixture_of_lines_is_refused_or_comes_back_the_same(lines: list[str], data: st.DataObject) -> None:
    whole = CHROMIUM_ANSWER.splitlines()
    for line in lines[:6]:
        whole.insert(data.draw(st.integers(0, len(whole))), line)
    for text in ("\n".join(lines), "\r\n".join(whole)):
        try:
            packed = sdp.compress(text)
        except sdp.SdpError:
            continue
        assert len(packed) <= MAX_SDP_BYTES
        canonical = sdp.decompress(packed)
        assert sdp.decompress(sdp.compress(canonical)) == canonical


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(
    st.lists(
        st.tuples(
            ADDRESSES, st.integers(1, 65535), st.integers(0, 2**32 - 1), st.sampled_from(["host", "srflx", "relay"])
        ),
        max_size=45,
    )
)
def test_any_candidates_fit_and_come_back_in_order(candidates: list[tuple[str, int, int, str]]) -> None:
    lines = [f"{n} 1 udp {p} {ip} {port} typ {kind}" for n, (ip, port, p, kind) in enumerate(candidates)]
    data = sdp.compress(with_candidates(lines))
    text = sdp.decompress(data)

    assert len(data) <= MAX_SDP_BYTES
    kept = [
        tuple(line.split()[4:6]) for line in text.split("m=video")[0].splitlines() if line.startswith("a=candidate")
    ]
    sent = list(dict.fromkeys((ip, str(port)) for ip, port, _, _ in candidates))
    assert kept == [address for address in sent if address in kept]
    assert len(kept) >= min(len(sent), 8)
