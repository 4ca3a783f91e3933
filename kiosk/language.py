"""The kiosk's words and sentences in one language, out of `kiosk/languages/<code>.toml`.

All files have the same keys (tests/unit/test_languages.py), so looking up a key that English has never fails.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FOLDER = Path(__file__).parent / "languages"
DEFAULT_CODE = "en"
CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")

_Texts = Annotated[dict[str, str], msgspec.Meta(min_length=1)]


class LanguageError(ValueError):
    """One line that names the file and what is wrong with it."""


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"own_words": "words"}):
    name: str  # as its speakers write it
    voice: str  # of espeak-ng
    own_words: _Texts
    titles: _Texts
    details: _Texts
    prompts: _Texts
    presence: _Texts
    notices: _Texts
    budget: _Texts

    @staticmethod
    def load(code: str) -> Language:
        """The language `code`; raises LanguageError when there is none or its file is broken."""
        return _load(code)

    @property
    def words(self) -> dict[str, str]:
        """Labels for `View.words`, with the languages' own names as `language_<code>`."""
        return self.own_words | {f"language_{code}": Language.load(code).name for code in available()}

    def say(self, key: str, **values: object) -> str:
        """A spoken sentence."""
        return self.prompts[key].format_map(values)

    def title(self, key: str, **values: object) -> str:
        return self.titles[key].format_map(values)

    def detail(self, key: str, **values: object) -> str:
        return self.details[key].format_map(values)

    def present(self, state: Literal["here", "busy", "nobody", "offline"], position: int = 0, until: str = "") -> str:
        """The sentence for who would answer now; shown, and spoken through `Prompts.speak`."""
        key = "nobody_until" if state == "nobody" and until else state
        return self.presence[key].format_map({"position": position, "until": until})

    def budget_line(self, name: Literal["day", "month"], carried_mb: float, limit_mb: float) -> str:
        """`limit_mb` 0: none."""
        key = f"{name}_limit" if limit_mb else name
        return self.budget[key].format(mb=f"{carried_mb:.1f}", limit=f"{limit_mb:g}")

    def held(self, why: Literal["cheap_hours", "day", "month"], until: str) -> str:
        """`until` is a time of day, "" where it is not known."""
        return self.budget["held_cheap_hours_soon" if why == "cheap_hours" and not until else f"held_{why}"].format(
            until=until
        )

    def notice(self, code: str, **values: object) -> str:
        """What a small sign says; an unknown code is shown as it is, for a technician on the telephone."""
        return self.notices.get(code, code.replace("_", " ")).format(**values)


def available() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml") if CODE.fullmatch(file.stem)))


@cache
def _load(code: str) -> Language:
    file = FOLDER / f"{code}.toml"
    if not CODE.fullmatch(code) or not file.is_file():
        raise LanguageError(f"no language {code!r}; there are: {', '.join(available())}")
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Language)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise LanguageError(f"{file}: {error}") from None
