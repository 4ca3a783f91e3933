// The patient's face: one function a screen, from a View to elements.

import { drawing, h, sign } from "./dom.js";
import {
  bigButton, button, delivery, header, heading, heard, minutes, notices, noticesSpelledOut, unsent, when,
} from "./parts.js";

function idle(view) {
  const advice = view.advice[0];
  return [
    header(view),
    h(
      "main.split.idle",
      { "data-key": "idle" },
      h(
        "div.picture",
        {},
        h("div.sun"),
        drawing("p-doctor"),
        noticesSpelledOut(view) && notices(view),
        advice &&
          button(
            { do: "show_advice", value: advice.id },
            "show_advice",
            { kind: "bubble", label: view.words.advice_waiting },
            sign("message"),
            h("span", {}, view.words.advice_waiting),
            view.advice.length > 1 && h("b", {}, String(view.advice.length)),
          ),
      ),
      h(
        "div.side",
        {},
        heading(view),
        bigButton(view),
        h("p.hint", {}, sign("warning"), h("span", {}, view.words.hold_hint)),
      ),
    ),
  ];
}

function ringing(view) {
  const call = view.call;
  return [
    header(view),
    h(
      "main.ringing",
      { "data-key": "ringing", class: call?.cancel_asked ? "cancel-asked" : "" },
      heading(view),
      view.emergency_instruction &&
        call?.emergency &&
        h("p.instruction", { "data-test": "instruction" }, sign("warning"), view.emergency_instruction),
      heard(view),
      h(
        "div.row",
        {},
        bigButton(view, { icon: "i-ringing", size: "small", bare: true }),
        button({ do: "cancel" }, "cancel", { icon: "cross", label: view.words.cancel, kind: "quiet stop" }),
      ),
    ),
  ];
}

function claimed(view) {
  return [
    header(view),
    h(
      "main.split.claimed",
      { "data-key": "claimed" },
      h("div.picture", {}, h("div.sun.waves"), drawing("p-doctor")),
      h(
        "div.side",
        {},
        view.call?.doctor && h("p.doctor", { "data-test": "doctor" }, sign("doctor"), view.call.doctor),
        heading(view),
        heard(view),
        button({ do: "cancel" }, "cancel", { icon: "cross", label: view.words.cancel, kind: "quiet stop" }),
      ),
    ),
  ];
}

function live(view, now) {
  const { call, words } = view;
  return [
    h(
      "main.live",
      { "data-key": "live" },
      h(
        "div.stage",
        {},
        h("div.unseen", {}, h("div.sun.waves"), drawing("p-doctor")),
        call?.media === "connecting" && h("p.state", { "data-test": "connecting" }, sign("again"), words.connecting),
        call?.media === "stalled" && h("p.state.weak", { "data-test": "stalled" }, sign("weak"), words.stalled),
      ),
      callbar(view, now),
    ),
  ];
}

/** Who one talks with, since when, and the way out of it. */
function callbar(view, now) {
  const { call, words } = view;
  return h(
    "div.callbar",
    {},
    h(
      "div.who",
      {},
      h("div.disc", {}, drawing("p-doctor-face")),
      h("b", { "data-test": "doctor" }, call?.doctor || words.doctor),
      call?.live_since_ms > 0 && h("time", { "data-test": "time" }, minutes(now - call.live_since_ms)),
    ),
    button({ do: "end" }, "end", { icon: "phone-down", label: words.end, kind: "stop round" }),
  );
}

function lost(view) {
  return [
    h(
      "main.lost",
      { "data-key": "lost" },
      h(
        "div.card",
        {},
        h(
          "div.line",
          { "data-test": "line" },
          h("div.disc", {}, sign("kiosk")),
          h("div.wire", {}, h("i"), h("i"), h("i")),
          h("div.break", {}, sign("cross")),
          h("div.wire", {}, h("i"), h("i"), h("i")),
          h("div.disc", {}, drawing("p-doctor-face")),
        ),
        heading(view),
        button({ do: "end" }, "end", { icon: "phone-down", label: view.words.end, kind: "quiet stop" }),
      ),
    ),
  ];
}

const SENT_SIGNS = { sending: "next", delivered: "check", heard: "ear" };

/** Nothing live fits: the button is held to speak, and the doctor's words come one turn after the other. */
function turns(view, now) {
  const { turns, words } = view;
  const state = turns.speaking ? "speaking" : turns.far === "playing" ? "playing" : turns.far === "speaking" ? "far" : "idle";
  const hears = state === "playing" || state === "far";
  return [
    h(
      "main.turns",
      { "data-key": "turns", "data-test": "turns", "data-now": state },
      h(
        "div.stage",
        {},
        heading(view),
        h(
          "div.talk",
          {},
          h("div.doctor-says", { class: hears ? "now" : "" }, h("div.disc", {}, drawing("p-doctor-face")), h("div.badge", {}, sign(hears ? "sound" : "ear")),
            turns.waiting > 0 && h("b.count", { "data-test": "waiting", "aria-label": words.turn_waiting }, String(turns.waiting))),
          h("div.wire", {}, h("i"), h("i"), h("i")),
          bigButton(view, { label: words.speak_turn, icon: "i-mic" }),
        ),
        h(
          "p.tells",
          {},
          state === "far"
            ? h("span.far", {}, sign("sound"), words.turn_far)
            : turns.sent && h("span", { class: turns.sent, "data-test": "sent", "data-sent": turns.sent }, sign(SENT_SIGNS[turns.sent]), words[`turn_${turns.sent}`]),
        ),
      ),
      callbar(view, now),
    ),
  ];
}

function incoming(view) {
  return [
    header(view),
    h(
      "main.split.incoming",
      { "data-key": "incoming" },
      h("div.picture", {}, h("div.sun.waves"), drawing("p-doctor")),
      h(
        "div.side",
        {},
        view.call?.doctor && h("p.doctor", { "data-test": "doctor" }, sign("doctor"), view.call.doctor),
        heading(view),
        h(
          "div.row",
          {},
          bigButton(view, { label: view.words.answer, icon: "i-ringing" }),
          button({ do: "cancel" }, "decline", { icon: "cross", label: view.words.decline, kind: "quiet" }),
        ),
      ),
    ),
  ];
}

function offer(view) {
  return [
    header(view),
    h(
      "main.offer",
      { "data-key": "offer" },
      heading(view),
      h(
        "div.choices",
        {},
        button(
          { do: "leave_message" },
          "leave_message",
          { kind: "choice yes", label: view.words.leave_message },
          h("div.scene", {}, sign("mic"), sign("next", "arrow"), sign("message")),
          h("span", {}, view.words.leave_message),
        ),
        button(
          { do: "dismiss" },
          "dismiss",
          { kind: "choice no", label: view.words.not_now },
          h("div.scene", {}, sign("cross")),
          h("span", {}, view.words.not_now),
        ),
      ),
    ),
  ];
}

function saved(view) {
  return [
    header(view),
    h(
      "main.saved",
      { "data-key": "saved" },
      h("div.done", {}, sign("check")),
      heading(view),
      delivery(view, view.saved_step, view.saved_times),
      unsent(view, view.saved_unsent_since_ms),
      button({ do: "dismiss" }, "dismiss", { icon: "check", label: view.words.close, kind: "large go" }),
    ),
  ];
}

function ended(view) {
  return [
    header(view),
    h(
      "main.split.ended",
      { "data-key": "ended" },
      h("div.picture", {}, h("div.sun"), drawing("p-doctor")),
      h(
        "div.side",
        {},
        h("div.done", {}, sign("check")),
        heading(view),
        view.saved_step && delivery(view, view.saved_step, view.saved_times),
        button({ do: "dismiss" }, "dismiss", { icon: "check", label: view.words.close, kind: "large go" }),
      ),
    ),
  ];
}

function emergency(view) {
  const instruction = view.emergency_instruction || view.detail;
  return [
    header(view),
    h(
      "main.split.emergency",
      { "data-key": "emergency" },
      h("div.picture", {}, h("div.sun.waves"), drawing("p-worker")),
      h(
        "div.side",
        {},
        h("h1", { "data-test": "title" }, sign("warning"), view.title),
        h(
          "p.instruction",
          { "data-test": "instruction", class: instruction.length > 90 ? "long" : "", vars: { fits: fits(instruction) } },
          instruction,
        ),
        h(
          "div.row",
          {},
          bigButton(view, { size: "small", icon: "i-phone" }),
          h(
            "div.stack",
            {},
            button({ do: "leave_message" }, "leave_message", {
              icon: "mic", label: view.words.leave_message, kind: "quiet",
            }),
            button({ do: "dismiss" }, "dismiss", { icon: "cross", label: view.words.close, kind: "quiet" }),
          ),
        ),
      ),
    ),
  ];
}

function advice(view, now, local) {
  const chosen =
    view.advice.find((one) => one.playing) ??
    view.advice.find((one) => one.id === local.advice) ??
    view.advice.find((one) => !one.heard) ??
    view.advice[0];
  return [
    header(view),
    h(
      "main.advice",
      { "data-key": "advice" },
      h("h1", { "data-test": "title" }, view.title),
      chosen && adviceCard(view, chosen),
      h(
        "div.row",
        {},
        view.advice.length > 1 &&
          h(
            "div.tabs",
            {},
            view.advice.map((one, index) =>
              button(
                { do: "show_advice", value: one.id },
                `show_advice-${one.id}`,
                { kind: one === chosen ? "plain chosen" : "plain", label: String(index + 1) },
                h("b", {}, String(index + 1)),
                one.heard && sign("check"),
              ),
            ),
          ),
        button({ do: "dismiss" }, "dismiss", { icon: "check", label: view.words.close, kind: "large go" }),
      ),
    ),
  ];
}

/** The doctor's answer, as the patient and the worker see it. */
export function adviceCard(view, one) {
  const { words } = view;
  return h(
    "article.letter",
    { "data-key": `advice-${one.id}`, "data-test": "advice" },
    h(
      "div.from",
      {},
      h("div.disc", {}, drawing("p-doctor-face")),
      h("div", {}, h("b", {}, one.given_by), h("time", {}, when(view, one.given_at_ms))),
      one.voice && !one.voice_arrived
        ? h("span.mark.waits", { "data-test": "voice_coming" }, sign("clock"), words.voice_coming)
        : one.heard && h("span.mark", { "data-test": "was_heard" }, sign("check"), words.heard),
    ),
    h("p.text", { "data-test": "advice-text", vars: { fits: fits(one.text) } }, one.text),
    button({ do: "play_advice", value: one.id }, "play_advice", {
      icon: "ear",
      label: one.playing ? words.playing : words.play,
      kind: one.playing ? "play playing" : "play",
    }),
  );
}

/** The largest type in which a text still fills its place without scrolling, about. */
const fits = (text) => `${(5.8 / Math.sqrt(text.length + 1)).toFixed(2)}rem`;

/** What the agent sends before it is ready, or the page shows when it is gone: pictures alone, or the last words. */
export function starting(words) {
  return [
    h(
      "main.starting",
      { "data-key": "starting" },
      h("div.disc", {}, sign("kiosk")),
      h("div.dots", {}, h("i"), h("i"), h("i")),
      words?.starting && h("p", {}, words.starting),
    ),
  ];
}

export const PATIENT_SCREENS = {
  idle, ringing, claimed, live, lost, turns, incoming, offer, saved, ended, emergency, advice,
};
