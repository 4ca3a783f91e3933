"""The hub's HTTP against its own OpenAPI description: whatever is asked, by whomever, no 5xx, and each answer is one
that the description has. With genuine requests and with spoilt ones; `scripts/fuzz` asks for longer.
"""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from hub import cases
from hub.roles import Role, permissions
from tests.adapters.hub.rig import PASSWORD, Hub
from tests.fuzz.conftest import is_long

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES, LONG_EXAMPLES = 8, 300  # of each operation and each way
SHORT_S = 60.0  # then a run that is not long asks no more
CONSULT = "c0" * 16


def sign_in(hub: Hub, role: Role) -> str:
    """A session's cookies."""
    hub.add_doctor(f"of-{role}", role)
    account = {"name": f"of-{role}", "password": PASSWORD}
    answer = httpx.post(f"{hub.url}/api/login", json=account, headers={"Origin": hub.url}, trust_env=False)
    assert answer.status_code == 204
    return "; ".join(f"{name}={value}" for name, value in answer.cookies.items())


def ask(hub: Hub, operation: Any, mode: Any, headers: dict[str, str], examples: int) -> set[int]:
    """The statuses of the answers; raises what is wrong with one."""
    statuses: set[int] = set()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def one(case: Any, real: bool) -> None:
        if real and "consult" in (case.path_parameters or {}):
            case.path_parameters["consult"] = CONSULT
        answer = case.call(base_url=hub.url, headers=headers, timeout=20)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    try:
        one()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE, "where nothing is taken, nothing can be spoilt"
    return statuses


@pytest.mark.timeout(3600)
def test_no_server_error_and_no_undescribed_answer(hub: Hub):
    hub.do(lambda session: cases.own_consult(session, "hill-1", CONSULT, 1) and None)
    cookies = {role: sign_in(hub, role) for role in Role}
    raw = httpx.get(f"{hub.url}/openapi.json", trust_env=False).json()
    operations = [result.ok() for result in schemathesis.openapi.from_dict(raw).get_all_operations()]
    assert len(operations) == sum(len(methods) for methods in raw["paths"].values())
    until = float("inf") if is_long() else time.monotonic() + SHORT_S
    reached = set()
    for operation in operations:
        described = raw["paths"][operation.path][operation.method.lower()]
        headers = {"Origin": hub.url}
        if "security" in described:
            may = [role for role in Role if any(f" {each}." in described["description"] for each in permissions(role))]
            headers["Cookie"] = cookies[may[0] if may else Role.DOCTOR]
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if time.monotonic() > until:
                break
            statuses = ask(hub, operation, mode, headers, LONG_EXAMPLES if is_long() else EXAMPLES)
            if statuses & {200, 201, 204}:
                reached.add(operation.label)
    assert hub.running
    assert "Traceback" not in hub.log.read_text()
    assert {"GET /", "GET /api/me", "GET /health"} <= reached, "it was spoken to, not only refused"
