from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.joining import (
    FINGERPRINT_BYTES,
    TOKEN_BYTES,
    CodeError,
    JoinCode,
    encode_code,
    fingerprint,
    join_link,
    parse_code,
    same_fingerprint,
    split_link,
)

codes = st.builds(
    JoinCode,
    st.binary(min_size=FINGERPRINT_BYTES, max_size=FINGERPRINT_BYTES),
    st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES),
)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@given(codes)
def test_a_code_says_what_it_was_made_of(code: JoinCode) -> None:
    text = encode_code(code)
    assert parse_code(text) == code
    assert [len(group) for group in text.split("-")] == [5] * 8


@given(codes)
def test_a_code_is_read_as_people_write_it(code: JoinCode) -> None:
    text = encode_code(code)
    assert parse_code(" " + text.lower().replace("-", " ") + "\n") == code
    assert parse_code(text.replace("-", "").replace("0", "O").replace("1", "l")) == code


@given(codes, st.integers(0, 39), st.sampled_from(ALPHABET))
def test_one_wrong_character_names_its_group(code: JoinCode, place: int, wrong: str) -> None:
    characters = list(encode_code(code).replace("-", ""))
    if characters[place] == wrong:
        return
    characters[place] = wrong
    with pytest.raises(CodeError, match=rf"mistyped in group {place // 5 + 1} \("):
        parse_code("".join(characters))


@given(codes, st.integers(0, 6))
def test_groups_that_changed_places_are_found(code: JoinCode, first: int) -> None:
    groups = encode_code(code).split("-")
    groups[first], groups[first + 1] = groups[first + 1], groups[first]
    with pytest.raises(CodeError, match="mistyped"):
        parse_code("-".join(groups))


@pytest.mark.parametrize(
    ("text", "says"), [("", "has 0 characters"), ("4XK2C-7Q0Z", "has 9 characters; look at group")]
)
def test_a_code_cut_short_says_so(text: str, says: str) -> None:
    with pytest.raises(CodeError, match=says):
        parse_code(text)


def test_a_character_of_no_code_is_named_with_its_group() -> None:
    text = encode_code(JoinCode(bytes(10), bytes(10)))
    with pytest.raises(CodeError, match=r"group 3 \(U"):
        parse_code(text[:12] + "U" + text[13:])


def test_the_fingerprint_is_of_the_whole_certificate() -> None:
    code = JoinCode(fingerprint(b"a certificate"), bytes(10))
    assert same_fingerprint(code, b"a certificate")
    assert not same_fingerprint(code, b"a certificatf")


@pytest.mark.parametrize("host", ["192.168.1.20", "fe80::1%eth0", "hub.local"])
def test_the_qr_code_says_code_and_address(host: str) -> None:
    address = f"[{host}]:8443" if ":" in host else f"{host}:8443"
    assert split_link(join_link(host, 8443, "AAAAA-BBBBB")) == ("AAAAA-BBBBB", address)


def test_a_bare_code_has_no_address() -> None:
    assert split_link(join_link("", 8443, "AAAAA-BBBBB")) == ("AAAAA-BBBBB", "")
    assert split_link("AAAAA-BBBBB") == ("AAAAA-BBBBB", "")
