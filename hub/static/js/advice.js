/** The advice thread with its receipts, and the place where the next one is written or spoken. */

import { fileUrl } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { clockTime, duration } from "./labels.js";
import { callState } from "./state.js";

/** @param {import("./state.js").Case} shown @param {number} now */
export function adviceThread(shown, now) {
  if (!shown.advice.length) return false;
  return h(
    "section",
    { class: "block", key: "advice", "aria-label": "Advice given" },
    h("h3", {}, icon("check"), "Advice"),
    h("ol", { class: "thread" }, shown.advice.map((advice) => adviceItem(advice, now))),
  );
}

function adviceItem(advice, now) {
  const reached = advice.heard_at ? "heard" : advice.delivered_at ? "delivered" : "sent";
  return h(
    "li",
    { class: "advice", key: advice.advice, "data-test": "advice", "data-advice": advice.advice, "data-reached": reached },
    h("p", { class: "advice-by quiet" }, advice.given_by),
    advice.text && h("p", { class: "advice-text" }, advice.text),
    advice.reply && h("audio", { controls: true, preload: "metadata", src: fileUrl(advice.reply), key: advice.reply }),
    h(
      "ol",
      { class: "receipts" },
      receipt("check", "sent", advice.given_at, now),
      receipt("arrived", "at the kiosk", advice.delivered_at, now),
      receipt("heard", "heard", advice.heard_at, now),
    ),
  );
}

function receipt(sign, word, at, now) {
  return h("li", { class: at ? "done" : "not-yet" }, icon(sign), at ? `${word} ${clockTime(at, now)}` : `not ${word} yet`);
}

/**
 * @param {import("./state.js").Case} shown @param {import("./state.js").State} state @param {any} actions
 * @param {{drafts: import("./drafts.js").Drafts, recorder: import("./recorder.js").Recorder, media: any}} keep
 */
export function composer(shown, state, actions, keep) {
  const { consult } = shown.card;
  const draft = keep.drafts.of(consult);
  const send = () => actions.sendAdvice(consult);
  const keys = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    send();
  };
  const empty = !draft.text.trim() && !draft.voice;
  return h(
    "section",
    { class: "composer", "aria-label": "New advice" },
    h("textarea", {
      "aria-label": "Advice for the patient and the health worker", placeholder: "Advice for the patient and the health worker…",
      rows: 2, maxlength: 4000, value: draft.text, readonly: draft.sending, onkeydown: keys, "data-test": "advice-text",
      oninput: (event) => actions.writeAdvice(consult, event.target.value),
    }),
    draft.voice && !draft.sending && voicePreview(consult, draft, actions),
    draft.error && h("p", { class: "problem", role: "alert", "data-test": "advice-error" }, icon("alert"), draft.error),
    h(
      "div",
      { class: "composer-bar" },
      voiceButton(consult, draft, state, actions, keep),
      h("span", { class: "quiet hint" }, "Ctrl + Enter sends"),
      h(
        "button",
        { class: "primary", type: "button", disabled: draft.sending || empty || keep.recorder.recordingFor === consult, onclick: send, "data-test": "advice-send" },
        draft.sending ? "Sending…" : draft.error ? "Send again" : "Send advice",
      ),
    ),
  );
}

function voicePreview(consult, draft, actions) {
  return h(
    "div",
    { class: "voice-preview", key: "preview", "data-test": "reply-preview" },
    h("span", { class: "with-icon" }, icon("voice"), duration(draft.voiceMs)),
    h("audio", { controls: true, src: draft.voiceUrl, key: draft.voiceUrl }),
    h("button", { class: "plain", type: "button", onclick: () => actions.discardVoice(consult), "data-test": "reply-discard" }, "Discard"),
  );
}

function voiceButton(consult, draft, state, actions, keep) {
  const { recorder } = keep;
  if (recorder.recordingFor === consult) {
    return h(
      "button",
      { class: "recording", type: "button", onclick: () => recorder.stop(), "data-test": "record-stop", key: "stop" },
      icon("stop"),
      `Stop ${duration(recorder.elapsedMs)}`,
    );
  }
  const inLine = ["live", "lost", "claimed", "calling"].includes(callState(state, keep.media.status()));
  const reason = inLine ? "Not during a call: the patient would hear it twice." : recorder.recordingFor ? "Another reply is being recorded." : "";
  return h(
    "button",
    {
      class: "record", type: "button", disabled: reason !== "" || draft.sending, title: reason || undefined, key: "record",
      onclick: () => actions.recordVoice(consult), "data-test": "record-reply",
    },
    icon("microphone"),
    draft.voice ? "Record again" : "Record a voice reply",
  );
}
