/** The inbox: cases to answer, cases answered, and on demand the closed ones. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { ago, complaintLabel, duration, outcomeLabel, stateLabel, urgencyLabel } from "./labels.js";
import { alreadyAnswered, toAnswer } from "./state.js";

/** @param {import("./state.js").State} state @param {any} actions @param {number} now */
export function inbox(state, actions, now) {
  const waiting = toAnswer(state.cases);
  return h(
    "section",
    { class: "inbox", key: "inbox", "aria-label": "Inbox" },
    h(
      "h2",
      {},
      "Inbox",
      waiting.length > 0 && h("span", { class: "tally" }, waiting.length),
      h(
        "span",
        { class: "tabs" },
        tab("open", "Open", state, actions),
        tab("closed", "Closed", state, actions),
      ),
    ),
    state.tab === "open" ? openCases(state, actions, now, waiting) : closedCases(state, actions, now),
  );
}

function tab(name, text, state, actions) {
  const on = state.tab === name;
  return h("button", { class: on ? "tab on" : "tab", type: "button", "aria-pressed": String(on), onclick: () => actions.showTab(name), "data-test": `tab-${name}` }, text);
}

function openCases(state, actions, now, waiting) {
  const answered = alreadyAnswered(state.cases);
  if (!waiting.length && !answered.length) return h("p", { class: "empty", key: "none" }, "No open case.");
  return h(
    "div",
    { class: "case-lists", key: "open" },
    h("ul", { class: "rows", key: "waiting" }, waiting.map((card) => caseRow(card, state, actions, now))),
    answered.length > 0 && h("h3", { key: "heading" }, "Answered"),
    answered.length > 0 && h("ul", { class: "rows", key: "answered" }, answered.map((card) => caseRow(card, state, actions, now))),
  );
}

function closedCases(state, actions, now) {
  if (state.closed === null) return h("p", { class: "empty", key: "loading" }, "Fetching…");
  if (!state.closed.length) return h("p", { class: "empty", key: "none" }, "No closed case.");
  return h(
    "div",
    { class: "case-lists", key: "closed" },
    h("ul", { class: "rows" }, state.closed.map((card) => caseRow(card, state, actions, now))),
    !state.closedEnd && h("button", { class: "wide", type: "button", onclick: actions.olderCases, "data-test": "older" }, "Show older ones"),
  );
}

function caseRow(card, state, actions, now) {
  const open = state.openConsult === card.consult;
  const fresh = !card.seen && card.state !== "closed";
  const classes = ["case-row", `u-${card.urgency}`, open && "open", fresh && "fresh"];
  return h(
    "li",
    { key: card.consult },
    h(
      "button",
      {
        class: classes.filter(Boolean).join(" "), type: "button", "data-test": "case-row", "data-consult": card.consult,
        "data-state": card.state, "data-complete": String(card.complete),
        "aria-current": open ? "true" : undefined, onclick: () => actions.openCase(card.consult),
      },
      h(
        "span",
        { class: "row-head" },
        fresh && h("span", { class: "new-dot", title: "Not opened yet" }),
        h("span", { class: "row-patient" }, card.patient || "Unnamed patient"),
        h("span", { class: "row-when" }, ago(card.opened_at, now)),
      ),
      h(
        "span",
        { class: "row-line" },
        card.urgency !== "routine" && urgencyChip(card.urgency),
        h("span", { class: "row-complaints" }, complaintsText(card)),
      ),
      h(
        "span",
        { class: "row-line quiet" },
        h("span", { class: "row-site" }, card.site),
        card.photos > 0 && h("span", { class: "with-icon", title: "Photos" }, icon("photo"), card.photos),
        card.voice_ms > 0 && h("span", { class: "with-icon", title: "Voice notes" }, icon("voice"), duration(card.voice_ms)),
        h("span", { class: `row-state s-${card.state}` }, stateLabel(card.state)),
      ),
    ),
  );
}

function complaintsText(card) {
  if (card.complaints.length) return card.complaints.map(complaintLabel).join(", ");
  if (card.text) return card.text;
  return card.last_outcome ? `Call: ${outcomeLabel(card.last_outcome)}` : "No complaint noted";
}

/** Told by word and sign, not by colour alone. @param {string} urgency */
export function urgencyChip(urgency) {
  const strong = urgency === "emergency" || urgency === "urgent";
  return h("span", { class: `urgency u-${urgency}` }, strong && icon("alert"), urgencyLabel(urgency));
}
