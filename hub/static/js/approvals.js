/** Devices that ask for what a technician has to allow: an expired certificate's renewal, or another kiosk's place. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { ago } from "./labels.js";

/** @typedef {{key: string, why: "expired"|"replaced", asked_at: number, refused: boolean}} Asking */

const WHAT = {
  expired: "Its certificate has run out; it asks for a new one.",
  replaced: "New hardware asks to take its place. The old device is then out.",
};

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function approvalsPart(state, actions, now) {
  const all = (state.kiosks ?? []).flatMap((card) => card.asking.map((asking) => ({ card, asking })));
  if (!all.length) return false;
  return h(
    "section",
    { class: "panel asking", key: "approvals", "data-test": "approvals" },
    h("h2", {}, icon("bell"), "Kiosks that wait for you"),
    h("table", {}, h("tbody", {}, all.map(({ card, asking }) => approvalRow(card, asking, state, actions, now)))),
  );
}

function approvalRow(card, asking, state, actions, now) {
  const name = `${card.kiosk} ${asking.key}`;
  const sure = state.asked === name;
  return h(
    "tr",
    { key: name, "data-test": "asking", "data-kiosk": card.kiosk, "data-key": asking.key, "data-refused": String(asking.refused) },
    h("th", { scope: "row" }, card.site || card.kiosk, h("span", { class: "id" }, card.kiosk)),
    h("td", {}, WHAT[asking.why] ?? asking.why, h("span", { class: "id" }, asking.refused ? "refused" : `asked ${ago(asking.asked_at, now)}`)),
    h("td", { class: "number" }, "key ", h("code", {}, asking.key)),
    h(
      "td",
      { class: "row-actions" },
      sure && h("span", { class: "quiet", key: "sure" }, `Does the device show key ${asking.key}?`),
      sure && h("button", { type: "button", key: "no", onclick: () => actions.ask("") }, "Cancel"),
      sure && h("button", { class: "primary", type: "button", key: "yes", disabled: state.busy, onclick: () => actions.decide(card.kiosk, asking.key, "approve"), "data-test": "approve-sure" }, "Yes, approve"),
      !sure && h("button", { type: "button", key: "approve", disabled: state.busy, onclick: () => actions.ask(name), "data-test": "approve" }, icon("check"), "Approve"),
      !sure && !asking.refused && h("button", { type: "button", key: "refuse", disabled: state.busy, onclick: () => actions.decide(card.kiosk, asking.key, "refuse"), "data-test": "refuse" }, "Refuse"),
    ),
  );
}
