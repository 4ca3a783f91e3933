/** The open case: what the clinic sent, what was tried, and the advice (`advice.js`). */

import { adviceThread, composer } from "./advice.js";
import { fileUrl } from "./api.js";
import { arriving } from "./arriving.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { urgencyChip } from "./inbox.js";
import { clockTime, complaintLabel, count, duration, outcomeLabel, stateLabel } from "./labels.js";
import { photos } from "./photos.js";
import { inCall } from "./state.js";

/**
 * @param {import("./state.js").State} state @param {any} actions @param {number} now
 * @param {{drafts: import("./drafts.js").Drafts, recorder: import("./recorder.js").Recorder}} keep
 */
export function caseView(state, actions, now, keep) {
  const shown = state.case;
  if (!shown) return h("section", { class: "case", key: "loading" }, h("p", { class: "empty" }, "Fetching the case…"));
  const { card } = shown;
  return h(
    "section",
    { class: "case", key: `case-${card.consult}`, "aria-label": "Case", "data-test": "case", "data-consult": card.consult, "data-state": card.state },
    otherPatient(state, actions),
    caseHead(shown, state, actions, now),
    h(
      "div",
      { class: "case-body" },
      note(shown, now),
      photos(shown, actions),
      voices(shown, now),
      history(shown, now),
      adviceThread(shown, now),
    ),
    composer(shown, state, actions, keep),
  );
}

function otherPatient(state, actions) {
  if (!inCall(state) || !state.call.consult || state.openConsult === state.call.consult) return false;
  return h(
    "p",
    { class: "notice warn", key: "other", "data-test": "other-patient" },
    icon("alert"),
    h("span", {}, "This is not the case of the patient on the line."),
    h("button", { type: "button", onclick: () => actions.openCase(state.call.consult) }, "Show the caller's"),
  );
}

function caseHead(shown, state, actions, now) {
  const { card } = shown;
  const busy = inCall(state);
  const reason = whyNoRing(shown, state, busy);
  return h(
    "header",
    { class: "case-head" },
    h(
      "div",
      { class: "case-title" },
      h("h2", {}, card.patient || "Unnamed patient"),
      h(
        "p",
        { class: "quiet" },
        urgencyChip(card.urgency),
        h("span", {}, card.site),
        h("span", { class: shown.kiosk_online ? "with-icon online" : "with-icon offline" }, icon(shown.kiosk_online ? "link" : "linkOff"), shown.kiosk_online ? "kiosk online" : "kiosk offline"),
        h("span", {}, stateLabel(card.state)),
      ),
    ),
    h(
      "div",
      { class: "case-actions" },
      h(
        "button",
        { class: "answer", type: "button", disabled: reason !== "", title: reason || undefined, onclick: () => actions.ringKiosk(card.consult), "data-test": "ring-kiosk", "aria-describedby": reason ? "no-ring" : undefined },
        icon("phone"),
        state.ringing === card.consult ? "Ringing…" : "Ring kiosk",
      ),
      card.state !== "closed" &&
        h("button", { type: "button", disabled: state.link !== "up", onclick: () => actions.closeCase(card.consult), "data-test": "close-case" }, "Close case"),
      !busy &&
        h("button", { class: "plain square", type: "button", "aria-label": "Put the case away", title: "Put the case away", onclick: actions.leaveCase, "data-test": "leave-case" }, icon("close")),
      reason && !busy && h("p", { class: "reason", id: "no-ring" }, reason),
    ),
  );
}

function whyNoRing(shown, state, busy) {
  if (state.link !== "up") return "The hub is not reached.";
  if (busy) return "You are in a call.";
  if (!shown.kiosk_online) return "The kiosk is offline. Advice goes out when it is back.";
  return state.ringing ? "Ringing…" : "";
}

function note(shown, now) {
  const { card } = shown;
  const facts = [
    card.complaints.length > 0 && [
      "Complaints",
      card.complaints.map((code) => h("span", { class: "chip", key: code }, complaintLabel(code))),
    ],
    ["Opened", clockTime(card.opened_at, now)],
    shown.entered_by && ["Entered by", shown.entered_by],
    shown.link_bytes > 0 && ["The kiosk's link", linkUse(shown)],
  ].filter(Boolean);
  return h(
    "section",
    { class: "block", key: "note", "aria-label": "Note" },
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value)))),
    card.text && h("p", { class: "note-text", "data-test": "case-text" }, card.text),
  );
}

function voices(shown, now) {
  const files = shown.files.filter((file) => file.role === "voice");
  if (!files.length) return false;
  return h(
    "section",
    { class: "block", key: "voices" },
    h("h3", {}, icon("voice"), count(files.length, "voice note")),
    h(
      "ul",
      { class: "voices" },
      files.map((file) =>
        h(
          "li",
          { key: file.digest, "data-test": "voice", "data-digest": file.digest, "data-complete": String(file.complete) },
          file.complete ? h("audio", { controls: true, preload: "metadata", src: fileUrl(file.digest) }) : h("div", { class: "waiting-file" }, arriving(file)),
          h("span", { class: "quiet" }, `${duration(file.duration_ms)}, ${clockTime(file.captured_at, now)}`),
        ),
      ),
    ),
  );
}

function history(shown, now) {
  if (!shown.calls.length) return false;
  return h(
    "section",
    { class: "block", key: "history" },
    h("h3", {}, icon("phone"), "Calls"),
    h(
      "ul",
      { class: "history" },
      shown.calls.map((call) =>
        h(
          "li",
          { key: call.call, "data-test": "call-line", "data-outcome": call.outcome ?? "" },
          h("time", {}, clockTime(call.requested_at, now)),
          h("span", {}, callText(call)),
        ),
      ),
    ),
  );
}

function callText(call) {
  const from = call.by_doctor ? `${call.doctor} rang the kiosk` : call.emergency ? "Emergency call" : "The patient called";
  const outcome = call.outcome ? outcomeLabel(call.outcome) : "under way";
  const by = !call.by_doctor && call.doctor ? (call.outcome === "answered" ? ` by ${call.doctor}` : `, ${call.doctor}`) : "";
  const length = call.answered_at && call.ended_at ? `, ${duration(call.ended_at - call.answered_at)}` : "";
  return `${from}: ${outcome}${by}${length}`;
}

/** What a consult took of a link that is paid for by the byte. */
function linkUse({ link_bytes: bytes, link_cost: cost, link_currency: currency }) {
  const used = `${(bytes / 1_000_000).toFixed(2)} MB`;
  return cost > 0 ? `${used}, ${cost.toFixed(2)} ${currency}`.trim() : used;
}
