"""Whatever is sent as a certificate request, a renewal or a join code: only the declared errors come out."""

from __future__ import annotations

import base64
import contextlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.csr import BadRequest, check_renewal, make_request, read_certificate, read_request
from edge_agent.core.joining import CodeError, parse_code, split_link

KEY = ec.generate_private_key(ec.SECP256R1())
REQUEST = make_request(KEY, X25519PrivateKey.generate().public_key())
DER = base64.b64decode("".join(REQUEST.split("\n")[1:-2]))


def pem(der: bytes, kind: str) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with a few bytes changed, removed or added."""
    der = bytearray(DER)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(der) - 1))
        match draw(st.sampled_from(["change", "remove", "add", "cut"])):
            case "change":
                der[at] = draw(st.integers(0, 255))
            case "remove" if len(der) > 1:
                del der[at]
            case "add":
                der[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del der[max(1, at) :]
    return bytes(der)


@given(st.one_of(damaged().map(lambda der: pem(der, "CERTIFICATE REQUEST")), st.text(), st.binary().map(str)))
def test_a_request(text: str) -> None:
    with contextlib.suppress(BadRequest):
        keys = read_request(text)
        assert isinstance(keys.signing.curve, ec.SECP256R1)
        assert len(keys.sealing_raw) == 32


@given(damaged())
def test_a_damaged_request_has_no_other_keys(der: bytes) -> None:
    """The signature is over both."""
    with contextlib.suppress(BadRequest):
        keys, good = read_request(pem(der, "CERTIFICATE REQUEST")), read_request(REQUEST)
        assert (keys.signing_der, keys.sealing_raw) == (good.signing_der, good.sealing_raw)


@given(st.one_of(damaged().map(lambda der: pem(der, "CERTIFICATE")), st.text()), st.binary(max_size=100))
def test_a_renewal(text: str, signature: bytes) -> None:
    with contextlib.suppress(BadRequest):
        check_renewal(read_certificate(text), signature)
        raise AssertionError("nobody has signed this")


@given(st.one_of(st.text(), st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ -", min_size=35, max_size=50)))
def test_a_join_code(text: str) -> None:
    with contextlib.suppress(CodeError):
        assert len(parse_code(text).token) == 10


@given(
    st.one_of(st.text(), st.text().map("teleconsult:join?".__add__), st.text().map("teleconsult:join?h=x&c=".__add__))
)
def test_what_a_camera_has_read(text: str) -> None:
    code, address = split_link(text)
    assert isinstance(code, str)
    assert isinstance(address, str)
