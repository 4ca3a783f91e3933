"""Views of every screen as the agent would send them, for tests that look at the kiosk's page."""

from __future__ import annotations

import time
from typing import Any

from kiosk.language import Language
from kiosk.screen import AdviceView, CallView, ConsultView, DraftView, Notice, PresenceView, TurnsView, View, WorkerView

COMPLAINTS = (
    "fever", "cough", "breathing", "pain", "stomach", "diarrhoea", "injury", "skin", "pregnancy", "child", "eyes",
    "other",
)  # fmt: skip
LONG_ADVICE = {
    "en": "Give clean water with sugar and salt, small sips, all day. Give the zinc tablet once a day for ten days. "
    "Come back tomorrow morning, or at once if there is blood, or if the child does not drink.",
    "fr": "Donnez de l'eau propre avec du sucre et du sel, par petites gorgées, toute la journée. Donnez un comprimé "
    "de zinc par jour pendant dix jours. Revenez demain matin, ou tout de suite s'il y a du sang.",
    "sw": "Mpe maji safi yenye sukari na chumvi, kidogo kidogo, siku nzima. Mpe kidonge kimoja cha zinki kila siku kwa "
    "siku kumi. Rudi kesho asubuhi, au mara moja kama kuna damu au mtoto hanywi.",
}


def now_ms() -> int:
    return int(time.time() * 1000)


def make_view(screen: str, code: str = "en", *, title: str = "", **fields: Any) -> View:
    language = Language.load(code)
    key = title or screen
    defaults: dict[str, Any] = {
        "screen": screen,
        "language": code,
        "words": language.words,
        "title": language.title(key),
        "detail": language.detail(key),
        "presence": PresenceView(state="here", text=language.present("here")),
        "online": True,
        "complaints": COMPLAINTS,
        "languages": ("en", "fr", "sw"),
        "worker_face": "locked",
    }
    return View(**(defaults | fields))


def all_views(code: str) -> dict[str, View]:
    """By a name for the picture's file."""
    language = Language.load(code)
    doctor = "Dr. A. Example"
    advice = AdviceView(
        id="a1", consult="c1", given_by=doctor, given_at_ms=now_ms(), text=LONG_ADVICE[code], voice=True,
        voice_arrived=True,
    )  # fmt: skip
    short = AdviceView(
        id="a2", consult="c2", given_by=doctor, given_at_ms=now_ms() - 86_400_000, text="Paracetamol 500 mg.",
        voice=True, voice_arrived=False, heard=True,
    )  # fmt: skip
    offline = {
        "presence": PresenceView(state="offline", text=language.present("offline")),
        "online": False,
    }
    busy = PresenceView(state="busy", position=3, text=language.present("busy", 3))
    nobody = PresenceView(state="nobody", until="14:30", text=language.present("nobody", until="14:30"))
    camera = Notice(code="camera_missing", text=language.notice("camera_missing"))
    notices = (camera, *(Notice(code=code, text=language.notice(code)) for code in ("disk_low", "clock_wrong")))

    def draft(step: str, **fields: Any) -> View:
        view_fields = {name: fields.pop(name) for name in ("worker", "notices", "worker_face") if name in fields}
        draft_view = DraftView(step=step, **fields)
        return make_view("draft", code, title=f"draft_{step}", light="message", draft=draft_view, **view_fields)

    def turns(title: str, light: str = "message", **fields: Any) -> View:
        call = CallView(heard_by="person", doctor=doctor, live_since_ms=now_ms() - 83_000, media="flowing")
        return make_view("turns", code, title=title, light=light, call=call, turns=TurnsView(**fields))

    return {
        "idle": make_view("idle", code),
        "idle-busy-notice": make_view("idle", code, presence=busy, notices=(camera,)),
        "idle-advice": make_view("idle", code, light="waiting", advice=(advice, short), presence=nobody),
        "idle-offline-notices": make_view("idle", code, notices=notices, simulated=True, light="fault", **offline),
        "ringing-machine": make_view(
            "ringing", code, title="ringing_machine", light="calling", call=CallView(heard_by="machine")
        ),
        "ringing-hub": make_view(
            "ringing", code, title="ringing_hub", light="calling", call=CallView(heard_by="hub"), presence=busy
        ),
        "ringing-cancel": make_view(
            "ringing", code, title="cancel_asked", light="calling", call=CallView(heard_by="hub", cancel_asked=True)
        ),
        "ringing-emergency": make_view(
            "ringing", code, title="ringing_emergency", light="emergency",
            call=CallView(heard_by="hub", emergency=True), emergency_instruction=language.say("emergency_instruction"),
        ),
        "claimed": make_view("claimed", code, light="claimed", call=CallView(heard_by="person", doctor=doctor)),
        "live": make_view(
            "live", code, light="live",
            call=CallView(heard_by="person", doctor=doctor, live_since_ms=now_ms() - 83_000, media="flowing"),
        ),
        "live-connecting": make_view(
            "live", code, light="live", call=CallView(heard_by="person", doctor=doctor, media="connecting")
        ),
        "live-stalled": make_view(
            "live", code, light="live",
            call=CallView(heard_by="person", doctor=doctor, live_since_ms=now_ms() - 3_683_000, media="stalled"),
        ),
        "lost": make_view("lost", code, light="lost", call=CallView(heard_by="person", doctor=doctor)),
        "turns": turns("turns", speaking=False, far=""),
        "turns-speaking": turns("turns_speaking", light="live", speaking=True, far=""),
        "turns-sent": turns("turns", speaking=False, far="speaking", sent="sending"),
        "turns-hearing": turns("turns_hearing", speaking=False, far="playing", waiting=2, sent="heard"),
        "turns-heard": turns("turns", speaking=False, far="", sent="heard"),
        "incoming": make_view("incoming", code, light="calling", call=CallView(heard_by="person", doctor=doctor)),
        "offer": make_view("offer", code, light="message"),
        "offer-offline": make_view("offer", code, title="offer_offline", light="message", **offline),
        "draft-voice": draft("voice"),
        "draft-voice-recording": draft("voice", recording=True, level=0.7, elapsed_ms=12_300),
        "draft-voice-recorded": draft("voice", voice_ms=23_000),
        "draft-photo": draft("photo", voice_ms=23_000),
        "draft-photo-taken": draft("photo", voice_ms=23_000, photos=("p1", "p2", "p3")),
        "draft-photo-none": draft("photo", notices=(camera,)),
        "draft-complaint": draft("complaint", voice_ms=23_000, complaints=("fever", "diarrhoea")),
        "draft-urgency": draft("urgency", voice_ms=23_000, urgency="soon"),
        "draft-review": draft(
            "review", voice_ms=23_000, photos=("p1", "p2"), complaints=("fever", "diarrhoea", "child"), urgency="urgent"
        ),
        "draft-review-empty": draft("review"),
        "draft-review-worker": draft(
            "review", voice_ms=23_000, photos=("p1",), complaints=("fever", "child"), urgency="soon", patient="17-204",
            text="38.9 °C, 11 kg", worker=_worker(code), worker_face="open",
        ),
        "saved": make_view(
            "saved", code, light="message", saved_consult="c1", saved_step="saved", saved_times=times("saved", 1),
            saved_unsent_since_ms=now_ms() - 60_000, **offline,
        ),
        "saved-received": make_view("saved", code, light="ready", saved_consult="c1", saved_step="received"),
        "ended": make_view("ended", code),
        "ended-delivery": make_view("ended", code, saved_consult="c1", saved_step="seen", saved_times=times("seen", 1)),
        "ended-cancelled": make_view("ended", code, title="ended_cancelled"),
        "emergency": make_view(
            "emergency", code, light="emergency", emergency_instruction=language.say("emergency_instruction"), **offline
        ),
        "emergency-long": make_view(
            "emergency", code, light="emergency", emergency_instruction=LONG_ADVICE[code], **offline
        ),
        "advice": make_view("advice", code, light="waiting", advice=(advice,)),
        "advice-two": make_view("advice", code, light="waiting", advice=(short, advice)),
        "advice-coming": make_view("advice", code, light="waiting", advice=(short,)),
        "pin": make_view("idle", code, worker_face="pin"),
        "worker": make_view("idle", code, worker_face="open", worker=_worker(code)),
        "worker-refused": make_view("idle", code, worker_face="open", worker=_worker(code)),
        "worker-empty": make_view(
            "idle", code, worker_face="open", worker=WorkerView(name="A. Example", consults=(), locks_at_ms=now_ms())
        ),
    }  # fmt: skip


def times(step: Any, age: int) -> dict[Any, int]:
    """Each step ten minutes after the one before."""
    order = ("saved", "received", "seen", "answered", "heard", "closed")
    return {name: now_ms() - age * 3_000_000 + at * 600_000 for at, name in enumerate(order[: order.index(step) + 1])}


def _worker(code: str) -> WorkerView:
    language = Language.load(code)
    words = language.words

    def consult(number: int, patient: str, step: Any, complaints: tuple[str, ...], **fields: Any) -> ConsultView:
        return ConsultView(
            id=f"c{number}", opened_at_ms=now_ms() - number * 3_000_000, patient=patient, complaints=complaints,
            urgency=fields.pop("urgency", "routine"), step=step, step_text=words[f"step_{step}"],
            step_times=times(step, number), **fields,
        )  # fmt: skip

    advice = AdviceView(
        id="a1", consult="c2", given_by="Dr. A. Example", given_at_ms=now_ms(), text=LONG_ADVICE[code], voice=True,
        voice_arrived=True,
    )  # fmt: skip
    return WorkerView(
        name="A. Example",
        locks_at_ms=now_ms() + 97_000,
        unsent=1,
        unsent_since_ms=now_ms() - 600_000,
        budget=(
            language.budget_line("day", 17.2, 20),
            language.budget_line("month", 180.4, 500),
            language.held("day", ""),
        ),
        consults=(
            consult(
                1,
                "17-204",
                "saved",
                ("fever", "child"),
                urgency="soon",
                unsent_since_ms=now_ms() - 600_000,
                set_aside=True,
                cost="1.24 MB, 24.80 KES",
            ),
            consult(2, "17-198", "answered", ("diarrhoea", "fever", "child"), urgency="urgent", advice=(advice,)),
            consult(3, "", "received", ("cough",)),
            consult(4, "16-877", "seen", ("injury",), urgency="emergency"),
            consult(40, "17-001", "heard", ("pregnancy",)),
            consult(90, "", "closed", ("skin", "eyes")),
        ),
    )
