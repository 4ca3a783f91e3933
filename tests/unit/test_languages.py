from __future__ import annotations

import re
from string import Formatter
from typing import get_args

import msgspec
import pytest

from kiosk.language import FOLDER, Language, LanguageError, available
from kiosk.screen import ConsultStep, DraftStep, Screen
from tests.adapters.kiosk_views import COMPLAINTS

TABLES = ("own_words", "titles", "details", "prompts", "presence", "notices", "budget")
MAY_BE_EMPTY = {("details", key) for key in ("live", "turns_hearing", "emergency", "advice", "worker")}


def fields_of(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field is not None}


def test_three_languages_are_there() -> None:
    assert {"en", "fr", "sw"} <= set(available())


@pytest.mark.parametrize("code", available())
@pytest.mark.parametrize("table", TABLES)
def test_every_language_has_the_keys_of_english(code: str, table: str) -> None:
    own, english = (getattr(Language.load(each), table) for each in (code, "en"))
    assert own.keys() == english.keys()
    for key, text in own.items():
        assert text.strip() or (table, key) in MAY_BE_EMPTY, f"{code}.{table}.{key} is empty"
        assert fields_of(text) == fields_of(english[key]), f"{code}.{table}.{key} has other {{values}}"


@pytest.mark.parametrize("code", available())
def test_labels_are_short_enough_for_a_button(code: str) -> None:
    too_long = {key: text for key, text in Language.load(code).own_words.items() if len(text) > 34}
    assert not too_long


@pytest.mark.parametrize("code", available())
def test_every_screen_and_step_has_its_words(code: str) -> None:
    language = Language.load(code)
    titles = set(language.titles)
    for screen in set(get_args(Screen)) - {"ringing", "draft"}:
        assert screen in titles
    assert {"ringing_machine", "ringing_hub"} <= titles
    words = language.words
    for step in get_args(DraftStep):
        assert f"draft_{step}" in titles
        assert f"draft_{step}" in words
    for step in get_args(ConsultStep):
        assert f"step_{step}" in words
    for complaint in COMPLAINTS:
        assert f"complaint_{complaint}" in words
    for each in available():
        assert words[f"language_{each}"] == Language.load(each).name


def test_the_page_asks_for_no_word_that_is_not_there() -> None:
    scripts = [file.read_text() for file in (FOLDER.parent / "static").glob("*.js")]
    asked = {word for script in scripts for word in re.findall(r"\bwords\??\.([a-z_]+)", script)}
    assert len(asked) > 30
    assert asked <= Language.load("en").words.keys()


def test_the_page_uses_every_word() -> None:
    page = "\n".join(file.read_text() for file in (FOLDER.parent / "static").glob("*.js"))
    built = ("draft_", "step_", "urgency_", "complaint_", "heard_", "turn_", "language_", "erase", "emergency")
    unused = {
        word
        for word in Language.load("en").own_words
        if not re.search(rf"\bwords\??\.{word}\b", page) and not word.startswith(built)
    }
    assert not unused


def test_presence_sentences() -> None:
    english = Language.load("en")
    assert english.present("here") == "A doctor is here"
    assert "number 4" in english.present("busy", 4)
    assert english.present("nobody", until="14:30") == "No doctor until 14:30"
    assert english.present("nobody") == "No doctor now"
    assert english.present("offline") == "No connection now"


def test_an_unknown_notice_is_shown_as_it_is() -> None:
    assert Language.load("fr").notice("fan_broken") == "fan broken"


@pytest.mark.parametrize("code", ["xx", "../en", "", "EN"])
def test_an_unknown_language_is_refused_by_name(code: str) -> None:
    with pytest.raises(LanguageError, match="there are: en, fr, sw"):
        Language.load(code)


def test_the_schema_takes_no_misspelt_table() -> None:
    with pytest.raises(msgspec.ValidationError, match="promts"):
        msgspec.convert({"name": "x", "voice": "x", "promts": {}}, Language)
