"""The hub's HTTP against its own OpenAPI description: whatever is asked, by whomever, no 5xx, and each answer is one
that the description has. With genuine requests and with spoilt ones; `scripts/fuzz` asks for longer.
"""

from __future__ import annotations

import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub import cases
from hub.roles import Role
from tests.adapters.hub.rig import PASSWORD, Hub

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 8  # of each operation and each way; the profile `long` has its own number
SHORT_S = 60.0  # then a run that is not long stops asking
CONSULT = "c0" * 16
WHO = {
    "see_patients": Role.DOCTOR, "give_advice": Role.DOCTOR, "see_kiosks": Role.TECHNICIAN,
    "invite_kiosks": Role.TECHNICIAN, "manage_accounts": Role.ADMINISTRATOR, "read_audit": Role.ADMINISTRATOR,
}  # fmt: skip


def sign_in(hub: Hub, role: Role) -> str:
    """A session's cookies."""
    hub.add_doctor(f"of-{role}", role)
    account = {"name": f"of-{role}", "password": PASSWORD}
    answer = httpx.post(f"{hub.url}/api/login", json=account, headers={"Origin": hub.url}, trust_env=False)
    assert answer.status_code == 204
    return "; ".join(f"{name}={value}" for name, value in answer.cookies.items())


def make_case(hub: Hub) -> None:
    """So that advice has something to be for."""
    hub.do(lambda session: cases.own_consult(session, "hill-1", CONSULT, 1) and None)


def _ask(operation, mode, examples: int, url: str, headers: dict[str, str], statuses: set[int]) -> None:
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def ask(case, real) -> None:
        if real and "consult" in (case.path_parameters or {}):
            case.path_parameters["consult"] = CONSULT
        answer = case.call(base_url=url, headers=headers, timeout=20)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()


@pytest.mark.timeout(3600)
def test_no_server_error_and_no_undescribed_answer(hub: Hub):
    make_case(hub)
    sessions = {role: sign_in(hub, role) for role in Role}
    raw = httpx.get(f"{hub.url}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(raw)
    long = settings.default is not None and settings.default.max_examples > 1000
    examples = 300 if long else EXAMPLES
    asked: dict[str, set[int]] = {}
    until = float("inf") if long else time.monotonic() + SHORT_S
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == sum(len(methods) for methods in raw["paths"].values())
    for operation in operations:
        text = raw["paths"][operation.path][operation.method.lower()].get("description", "")
        role = next((role for word, role in WHO.items() if word in text), Role.DOCTOR)
        headers = {"Origin": hub.url}
        if "security" in raw["paths"][operation.path][operation.method.lower()]:
            headers["Cookie"] = sessions[role]
        statuses = asked.setdefault(operation.label, set())
        for mode in GenerationMode:
            if statuses and time.monotonic() > until:
                continue  # each was asked something
            try:
                _ask(operation, mode, examples, hub.url, headers, statuses)
            except Exception as error:
                if "Unsatisfiable" not in type(error).__name__:  # nothing can be spoilt where nothing is taken
                    raise
    assert hub.running
    assert "Traceback" not in hub.log.read_text()
    reached = {label for label, statuses in asked.items() if statuses & {200, 201, 204}}
    assert {"GET /", "GET /api/me", "GET /api/kiosks", "GET /api/accounts", "GET /api/audit"} <= reached, asked
