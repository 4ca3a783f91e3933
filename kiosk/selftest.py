"""`teleconsult selftest`: progress as it goes, one line a check with what to do, and the telephone code at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from edge_agent.config import KioskSettings
from edge_agent.core.findings import GROUP_NAMES, Finding, Verdict, worst
from edge_agent.core.settings import SettingsError
from edge_agent.selftest.run import PRESS_S, Options, Result
from edge_agent.selftest.run import run as run_all

OK, FAILED = 0, 1
_SIGNS = {Verdict.PASS: "good", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL", Verdict.UNTESTED: "  – "}


def run(read_settings: Callable[[], KioskSettings], *, as_json: bool, ask: bool, silent: bool) -> int:
    """A wrong configuration is a finding too: what does not need it is tested with the defaults."""
    options = Options(silent=silent, asker=_Terminal() if ask else None)
    try:
        settings = read_settings()
    except SettingsError as error:
        settings, options.configuration = KioskSettings(), " ".join(str(error).split())
    if not as_json:
        options.found = _print
        options.said = lambda what: print(f"      … {what}", file=sys.stderr, flush=True)
    result = run_all(settings, options)
    if as_json:
        print(json.dumps(_plain(result), ensure_ascii=False))
    else:
        _summary(result)
    return OK if result.ok else FAILED


def _print(finding: Finding) -> None:
    print(f"{_SIGNS[finding.verdict]}  {finding.check:14} {finding.says}", flush=True)
    if finding.do:
        print(f"      {'':14} → {finding.do}", flush=True)


def _summary(result: Result) -> None:
    root = worst(result.findings)
    print()
    if result.failed:
        print(f"Failed: {', '.join(f'{GROUP_NAMES[group]} ({group})' for group in result.failed)}.")
    if root is not None:
        print(f"First of all: {root.what}\n  {root.do}")
    else:
        print("Nothing is wrong with what was tested.")
    print(f"Telephone code: {result.code}")


def _plain(result: Result) -> dict[str, object]:
    root = worst(result.findings)
    return {
        "code": result.code,
        "cause": root.name if root else "",
        "failed": [group.name.lower() for group in result.failed],
        "findings": [
            {
                "check": each.check, "group": each.group.name.lower(), "verdict": each.verdict.name.lower(),
                "says": each.says, "cause": each.cause, "do": each.do,
            }
            for each in result.findings
        ],
    }  # fmt: skip


class _Terminal:
    def press_now(self) -> None:
        print(f"      Press the big button now, once ({PRESS_S:.0f} s) …", flush=True)

    def saw_lamp(self) -> bool:
        return input("      The lamp should shine green now. Does it? [y/n] ").strip().lower().startswith("y")
