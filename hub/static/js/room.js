/** The waiting room: who is calling, in the order in which they will be taken. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { duration, languageLabel, warningLabel } from "./labels.js";
import { inCall } from "./state.js";

/** @param {import("./state.js").State} state @param {any} actions @param {number} now the hub's clock */
export function waitingRoom(state, actions, now) {
  const cards = state.queue.filter((card) => card.call !== state.call?.call || state.call.phase === "ended");
  const waiting = cards.filter((card) => !card.claimed_by).length;
  return h(
    "section",
    { class: "room", key: "room", "aria-label": "Waiting room" },
    h("h2", {}, "Waiting room", waiting > 0 && h("span", { class: "tally" }, waiting)),
    cards.length
      ? h("ol", { class: "cards" }, cards.map((card) => ringCard(card, state, actions, now)))
      : h("p", { class: "empty" }, state.available ? "Nobody is waiting. You will hear it when somebody calls." : "Nobody is waiting."),
  );
}

function ringCard(card, state, actions, now) {
  if (card.claimed_by) return takenCard(card);
  const classes = ["ring-card", card.emergency && "emergency", card.rings_me && "ringing"];
  return h(
    "li",
    {
      class: classes.filter(Boolean).join(" "), key: card.call,
      "data-test": "ring-card", "data-call": card.call, "data-emergency": String(card.emergency),
    },
    card.emergency && h("p", { class: "emergency-strip" }, icon("alert"), "EMERGENCY"),
    h(
      "div",
      { class: "ring-body" },
      h(
        "p",
        { class: "ring-head" },
        !card.emergency && h("span", { class: "ring-sign" }, icon("phone")),
        h("strong", { class: "site", title: card.kiosk }, card.site),
        h("span", { class: "waiting", title: "Waiting for" }, icon("clock"), h("time", {}, duration(now - card.requested_at))),
      ),
      h("p", { class: "ring-line quiet" }, card.kiosk, h("span", { class: "chip" }, languageLabel(card.language))),
      card.warnings.length > 0 && h("p", { class: "ring-warning" }, icon("alert"), card.warnings.map(warningLabel).join(", ")),
      claimButton(card, state, actions),
      !card.rings_me && h("p", { class: "ring-line quiet" }, "Does not ring here now"),
    ),
  );
}

function takenCard(card) {
  return h(
    "li",
    { class: "ring-card taken", key: card.call, "data-test": "ring-card", "data-call": card.call, "data-emergency": String(card.emergency) },
    h("strong", { class: "site", title: card.kiosk }, card.site),
    card.emergency && h("span", { class: "urgency u-emergency" }, icon("alert"), "Emergency"),
    h("p", { class: "with-icon quiet" }, icon("person"), `${card.claimed_by} has taken it`),
  );
}

function claimButton(card, state, actions) {
  const busy = inCall(state);
  const claiming = state.claiming === card.call;
  const text = claiming ? "Taking…" : "Take call";
  return h(
    "button",
    {
      class: card.emergency ? "danger wide" : "answer wide", type: "button", "data-test": "claim",
      "aria-label": `${text}, ${card.site}${card.emergency ? ", emergency" : ""}`,
      disabled: busy || state.claiming !== "" || state.link !== "up", onclick: () => actions.claim(card.call),
      title: busy ? "You are in a call" : undefined,
    },
    icon("phone"),
    text,
  );
}
