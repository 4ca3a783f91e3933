from __future__ import annotations

import pytest

from edge_agent.core.settings import SettingsError
from edge_agent.core.tomltext import set_values

KEPT = """# Clinic by the river
[kiosk]
language = "sw"   # the villagers'
id = "old" # from "the" last # hub

[broker]
host = "10.0.0.2"
"""


def test_what_a_person_wrote_stays() -> None:
    assert set_values(KEPT, {"kiosk": {"id": "new"}, "broker": {"port": 8883}}) == KEPT.replace(
        'id = "old"', 'id = "new"'
    ).replace('"10.0.0.2"\n', '"10.0.0.2"\nport = 8883\n')


@pytest.mark.parametrize("text", ["", "\n", "[screen]\nport = 8480\n", "[screen]\nport = 8480"])
def test_a_table_that_is_not_there_comes_last(text: str) -> None:
    changed = set_values(text, {"kiosk": {"id": 'a "b" \\'}})
    assert changed.endswith('[kiosk]\nid = "a \\"b\\" \\\\"\n')
    assert changed.startswith(text.strip("\n"))


def test_a_hash_in_a_value_is_no_comment() -> None:
    assert set_values('[kiosk]\nid = "a#b"\n', {"kiosk": {"id": "c"}}) == '[kiosk]\nid = "c"\n'


def test_a_key_of_another_table_is_left_alone() -> None:
    text = "[screen]\nport = 1\n\n[broker]\nport = 2\n"
    assert set_values(text, {"broker": {"port": 3}}) == text.replace("2", "3")


@pytest.mark.parametrize("text", ["kiosk = {id = 'x'}\n", "[kiosk]\nid = '''\nx'''\n", "kiosk.id = 'x'\n"])
def test_a_shape_it_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"set kiosk\.id by hand"):
        set_values(text, {"kiosk": {"id": "new"}}, "kiosk.toml")


def test_no_toml_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"kiosk\.toml: not valid TOML"):
        set_values("[kiosk", {"kiosk": {"id": "new"}}, "kiosk.toml")
