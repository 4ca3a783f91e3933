"""The hub's part in a kiosk's self-test, over HTTP and on the technician's page."""

from __future__ import annotations

import httpx
import msgspec
from playwright.async_api import Browser, expect

from edge_agent.core import findings, phonecode
from edge_agent.core.csr import sign_renewal, sign_self_test
from edge_agent.core.joining import SelfTestReply, SelfTestRequest
from edge_agent.identity import Identity
from hub.roles import Role
from hub.selftests import MAX_LINE_BYTES
from tests.adapters.hub.rig import Hub, now_ms
from tests.adapters.hub.test_office_page import browser, desk  # noqa: F401 -- a fixture


def asked(identity: Identity, sign=sign_self_test) -> bytes:
    signature = sign(identity.certificate, identity.signing_key).hex()
    return msgspec.json.encode(SelfTestRequest(identity.certificate_pem, signature))


def test_a_kiosk_of_the_hub_is_told_time_and_servers_and_nobody_else(hub: Hub) -> None:
    identity = hub.add_kiosk("hill-7")
    answer = httpx.post(f"{hub.url}/selftest", content=asked(identity))
    told = msgspec.json.decode(answer.content, type=SelfTestReply)
    assert abs(told.time_ms - now_ms()) < 5000
    assert httpx.post(f"{hub.url}/selftest", content=asked(identity, sign_renewal)).status_code == 403
    assert httpx.post(f"{hub.url}/selftest", content=b"{}").status_code == 400


def test_the_line_answers_as_much_as_it_took_and_no_more(hub: Hub) -> None:
    assert httpx.post(f"{hub.url}/line", content=b"x" * 5000).content == bytes(5000)
    assert httpx.post(f"{hub.url}/line", content=b"x" * (MAX_LINE_BYTES + 1)).status_code == 413


async def test_a_technician_reads_a_telephone_code(hub: Hub, browser: Browser) -> None:  # noqa: F811
    hub.add_doctor("tech", Role.TECHNICIAN)
    code = phonecode.encode(phonecode.of_findings([findings.failed("names", "no_dns")]))
    wrong = code[:-1] + str((int(code[-1]) + 1) % 10)
    async with desk(hub, browser) as tech:
        await tech.sign_in("tech")
        await tech.part("code-heard").fill(wrong)
        await tech.part("code-decode").click()
        await expect(tech.part("notice")).to_contain_text("read out once more")
        await tech.part("code-heard").fill(code)
        await tech.part("code-decode").click()
        await expect(tech.part("code-meaning")).to_contain_text(findings.BY_NAME["no_dns"].what)
        await expect(tech.page.locator("[data-verdict=fail]")).to_have_text("Failed: line")
        await tech.picture("telephone-code")
