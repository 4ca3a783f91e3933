"""Flow 7: kiosk, hub, broker and media process killed with SIGKILL at points of the other flows. A live call is live
again, a draft loses at most the field in hand, nothing captured is lost or doubled."""

import asyncio
import hashlib
import time

import pytest

from hub import console
from tests.e2e.program import until
from tests.e2e.watching import watch

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

LIVE_AGAIN_S = 15.0
MEDIA_LIVE_AGAIN_S = 5.0 + 5 * 0.05  # 5 s + 5 RTT; the RTT of a loopback is far below 50 ms


@pytest.fixture(scope="module")
def kiosk_settings():
    return {"call": {"ended_screen_s": 2.0}}


async def kill_and_restart(kit, kiosk, victim: str) -> None:
    """Dead for a moment, as a service manager leaves it."""
    program = {"kiosk": kiosk.agent, "hub": kit.hub, "broker": kit.broker}[victim]
    await program.kill()
    if victim == "kiosk":
        await kiosk.restart()
    elif victim == "hub":
        await kit.start_hub()
    else:
        await kit.start_broker()


async def live_call(kiosk, doctor) -> str:
    await kiosk.board.press()
    call = await doctor.take_call()
    await kiosk.screen.until(lambda view: view.screen == "live", "live")
    await asyncio.sleep(2)  # into the conversation
    return call


# --- in a live call


@pytest.mark.parametrize("victim", ["kiosk", pytest.param("hub", marks=pytest.mark.long), "broker"])
async def test_a_live_call_is_live_again(kit, kiosk, doctor, voices, victim):
    call = await live_call(kiosk, doctor)
    media = kiosk.media_pid
    await kill_and_restart(kit, kiosk, victim)
    restarted = time.monotonic()
    seen = len(kiosk.screen.views)
    if victim == "kiosk":
        await kiosk.screen.when(lambda view: view.screen == "live", "live again", LIVE_AGAIN_S, since=seen)
        assert kiosk.media_pid != media
    await doctor.until_state("live", timeout_s=LIVE_AGAIN_S)
    print(f"\n{victim} restarted: live again after {time.monotonic() - restarted:.1f} s")
    (await watch(kiosk, doctor, voices.patient, voices.doctor, 9.0)).check()
    assert kiosk.screen.view.screen == "live"
    assert await doctor.state() == "live"
    if victim != "kiosk":
        assert kiosk.media_pid == media, "the call's media did not need the hub or the broker"
    await doctor.hang_up()
    (await kit.until_over(call, 30.0)).check("answered")


async def test_a_killed_media_process_is_replaced_in_the_call(kit, kiosk, doctor, voices):
    call = await live_call(kiosk, doctor)
    seen, killed = len(kiosk.screen.views), kiosk.media_pid
    at = kiosk.kill_media()
    await kiosk.screen.when(lambda view: view.screen == "lost", "lost", 3.0, since=seen)
    live = await kiosk.screen.when(lambda view: view.screen == "live", "live again", 10.0, since=seen + 1)
    assert live.at - at <= MEDIA_LIVE_AGAIN_S
    await doctor.until_state("live")
    assert kiosk.media_pid not in (None, killed)
    (await watch(kiosk, doctor, voices.patient, voices.doctor, 9.0)).check()
    await doctor.hang_up()
    (await kit.until_over(call)).check("answered")


async def test_an_end_that_the_killed_hub_missed_is_told_afterwards(kit, kiosk, doctor):
    call = await live_call(kiosk, doctor)
    await kit.hub.kill()
    await kiosk.screen.act("end")
    await kiosk.screen.until(lambda view: view.screen in ("ended", "idle"), "the end")
    await kit.start_hub()
    over = await kit.until_over(call, 30.0)
    assert (over.outcome, over.kiosk_outcome) == ("answered", "answered")
    await doctor.until_state("ended", "idle", timeout_s=30.0)


async def test_an_orphaned_media_process_ends_by_itself(kit, kiosk):
    media = kiosk.media_pid
    await kiosk.agent.kill()
    await until(lambda: not alive(media), 5.0, "the media process ends with its agent")
    await kiosk.restart()
    await kiosk.until_ready()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- before the call


@pytest.mark.parametrize("victim", ["kiosk", "hub", pytest.param("broker", marks=pytest.mark.long)])
@pytest.mark.parametrize("point", ["ringing", "claimed"])
async def test_a_call_on_its_way_goes_on(kit, kiosk, available, victim, point):
    mark = len(available.got)
    await kiosk.board.press()
    ring = await available.until_rings(mark)
    await kiosk.screen.until(lambda view: view.screen == "ringing" and view.call.heard_by == "hub", "heard by the hub")
    if point == "claimed":
        await available.send(console.Claim(call=ring.call))
        await kiosk.screen.until(lambda view: view.screen == "claimed", "a doctor is coming")
    seen, mark = len(kiosk.screen.views), len(available.got)
    await kill_and_restart(kit, kiosk, victim)
    if point == "ringing":
        if victim == "hub":
            assert (await available.until_rings(mark, 15.0)).call == ring.call
        if victim == "kiosk":
            await kiosk.screen.when(
                lambda view: view.screen == "ringing" and view.call.heard_by == "hub", "ringing again", 15.0, since=seen
            )
    else:
        await kiosk.screen.when(lambda view: view.screen == "claimed", "claimed still", 15.0, since=seen - 1)
        if victim == "hub":
            hello = await available.until(console.Hello, lambda hello: True, "hello again", since=mark)
            assert hello.resume == ring.call
    await until(lambda: kiosk.screen.view.online, 30.0, "the kiosk is online")
    assert kiosk.screen.view.screen == point
    calls = kit.rows("SELECT id, consult_id FROM call WHERE phase != 'ended'")
    assert [row["id"] for row in calls] == [ring.call]
    await kiosk.screen.act("cancel")
    (await kit.until_over(ring.call, 20.0)).check("cancelled")


# --- in a draft, and while it is sent


async def offline_draft(kit, kiosk) -> None:
    await kit.hub.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    await kiosk.board.press()
    await kiosk.on_step("voice")


async def test_a_draft_is_as_it_was(kit, kiosk, available):
    await offline_draft(kit, kiosk)
    await kiosk.record(1.5)
    await kiosk.screen.act("step", "photo")
    await kiosk.on_step("photo")
    await kiosk.take_photo(1)
    await kiosk.screen.act("step", "complaint")
    view = await kiosk.on_step("complaint")
    code = view.complaints[0]
    await kiosk.screen.act("complaint", code)
    before = (await kiosk.screen.until(lambda view: code in view.draft.complaints, code)).draft
    seen = len(kiosk.screen.views)
    await kill_and_restart(kit, kiosk, "kiosk")
    after = (await kiosk.screen.when(lambda view: view.screen == "draft", "the draft", 15.0, since=seen)).value.draft
    assert (after.voice_ms, after.photos, after.complaints) == (before.voice_ms, before.photos, before.complaints)
    await kiosk.screen.act("save")
    view = await kiosk.screen.until(lambda view: view.screen == "saved", "saved")
    await kit.start_hub()
    case = await available.case(view.saved_consult, lambda case: case.card.complete, 20.0)
    assert sorted(card.role for card in case.files) == ["photo", "voice"]
    assert case.card.complaints == (code,)


async def test_a_recording_cut_by_the_kill_costs_only_itself(kit, kiosk):
    await offline_draft(kit, kiosk)
    view = await kiosk.on_step("voice")
    if not view.draft.recording:
        await kiosk.screen.act("record")
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.elapsed_ms > 1000, "recording")
    seen = len(kiosk.screen.views)
    await kill_and_restart(kit, kiosk, "kiosk")
    await kiosk.screen.when(lambda view: view.screen == "draft", "the draft", 15.0, since=seen)
    await kiosk.until_media()
    await kiosk.record(1.0)
    await kiosk.screen.act("save")
    await kiosk.screen.until(lambda view: view.screen == "saved", "saved")
    await kit.start_hub()
    await kiosk.until_all_sent()


@pytest.mark.parametrize(
    "victim", [pytest.param("kiosk", marks=pytest.mark.long), "hub", pytest.param("broker", marks=pytest.mark.long)]
)
async def test_what_is_being_sent_arrives_once(kit, kiosk, available, victim):
    await offline_draft(kit, kiosk)
    consult = await kiosk.leave_message(voice_s=3.0, photos=2, complaints=1, urgency="soon")
    saved = {hashlib.sha256(data).hexdigest() for _, data in kiosk.saved_files(consult)}
    assert len(saved) >= 3, "a voice, two photos, and their renditions"
    known = {case.consult for case in available.last(console.Inbox).cases}
    await kit.start_hub()
    for moment in (0.02, 0.1, 0.25):  # into the transfer, each time a little further
        await asyncio.sleep(moment)
        await kill_and_restart(kit, kiosk, victim)
    case = await available.case(consult, lambda case: case.card.complete, 40.0)
    cards = [*case.files, *(each for card in case.files for each in card.renditions)]
    assert {card.digest for card in cards} == saved
    assert len(case.files) == 3
    for card in cards:
        assert hashlib.sha256(await available.file(card.digest)).hexdigest() == card.digest
    await kiosk.until_all_sent(30.0)
    new = {case.consult for case in available.last(console.Inbox).cases} - known
    assert new <= {consult}
    assert len(kit.rows("SELECT id FROM consult WHERE id = ?", consult)) == 1
    kinds = [row["kind"] for row in kit.rows("SELECT kind FROM uplink WHERE consult_id = ? ORDER BY seq", consult)]
    assert len(kinds) == len(kit.rows("SELECT DISTINCT seq FROM uplink WHERE consult_id = ?", consult))


# --- advice on its way


@pytest.mark.parametrize(
    "victim", ["kiosk", pytest.param("hub", marks=pytest.mark.long), pytest.param("broker", marks=pytest.mark.long)]
)
async def test_advice_on_its_way_arrives_once_and_is_heard_back(kit, kiosk, available, victim):
    await offline_draft(kit, kiosk)
    consult = await kiosk.leave_message(complaints=1)
    await kit.start_hub()
    await available.case(consult, lambda case: case.card.complete, 20.0)
    advice = await available.advise(consult, f"Rest, and drink. Say so if the {victim} dies.")
    await kill_and_restart(kit, kiosk, victim)
    await kiosk.screen.until(lambda view: [each.id for each in view.advice].count(advice) == 1, "the advice", 30.0)
    assert len(kiosk.rows("SELECT id FROM advice WHERE consult = ?", bytes.fromhex(consult))) == 1
    await kiosk.to_idle()
    await kiosk.screen.act("show_advice", advice)
    await until(
        lambda: kiosk.rows("SELECT heard_at_ms FROM advice WHERE id = ?", bytes.fromhex(advice))[0]["heard_at_ms"],
        20.0,
        "heard, on the kiosk's disk",
    )
    await kill_and_restart(kit, kiosk, victim)
    heard = await available.case(consult, lambda case: case.advice[-1].heard_at > 0, 30.0)
    assert len(heard.advice) == 1


@pytest.mark.parametrize(
    "victim", [pytest.param("kiosk", marks=pytest.mark.long), pytest.param("hub", marks=pytest.mark.long), "broker"]
)
async def test_a_call_back_survives(kit, kiosk, available, victim):
    await offline_draft(kit, kiosk)
    consult = await kiosk.leave_message(complaints=1)
    await kit.start_hub()
    await kit.settle()
    mark = len(available.got)
    await available.send(console.RingKiosk(consult=consult))
    update = await available.until(
        console.CallUpdate, lambda each: each.phase == "calling_kiosk", "ringing", since=mark
    )
    await kiosk.screen.until(lambda view: view.screen == "incoming", "the doctor rings")
    seen = len(kiosk.screen.views)
    await kill_and_restart(kit, kiosk, victim)
    if victim == "kiosk":
        await kiosk.screen.when(lambda view: view.screen == "incoming", "it rings again", 15.0, since=seen)
    await until(lambda: kiosk.screen.view.online, 30.0, "online")
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.screen in ("claimed", "live"), "accepted", 15.0)
    calls = kit.rows("SELECT id FROM call WHERE consult_id = ?", consult)
    assert [row["id"] for row in calls] == [update.call]
    await available.send(console.HangUp(call=update.call))
    await kit.until_over(update.call, 20.0)
