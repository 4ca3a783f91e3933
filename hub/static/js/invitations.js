/** Codes with which kiosks join: made, shown once, printed, taken back. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { clockTime, count, day } from "./labels.js";

/**
 * @typedef {{code: string, qr: string[]}} Code rows of the QR code, of 0 and 1
 * @typedef {{number: string, site: string, kiosk: string, replaces: boolean, made_at: number, expires_at: number,
 *   state: "open"|"used"|"withdrawn"}} InvitationCard
 */

const QR_BORDER = 4; // modules of quiet around it: a camera looks for them

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function invitationsPart(state, actions, now) {
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    actions.invite({ site: String(form.get("site")), count: Number(form.get("count")) });
  };
  return h(
    "section",
    { class: "panel", key: "invite" },
    h("h2", {}, "New kiosks"),
    h(
      "form",
      { class: "line-form", onsubmit: submit },
      h("label", {}, "Clinic, as doctors shall see it", h("input", { name: "site", required: true, maxlength: "200", "data-test": "invite-site" })),
      h("label", { class: "short" }, "Codes", h("input", { name: "count", type: "number", min: "1", max: "50", required: true, created: (field) => (field.value = "1"), "data-test": "invite-count" })),
      h("button", { class: "primary", type: "submit", disabled: state.busy, "data-test": "invite-submit" }, "Make codes"),
    ),
    state.made && state.made.codes && madeCodes(state.made, actions),
    givenOut(state, actions, now),
  );
}

function madeCodes(made, actions) {
  const many = made.codes.length > 1;
  return h(
    "div",
    { class: "made", key: "made", role: "status", "data-test": "codes" },
    h(
      "p",
      {},
      h("strong", {}, `${count(made.codes.length, "code")} for ${made.for}. `),
      "On the kiosk: ", h("code", {}, "teleconsult join --qr"), " and hold the code before its camera, or type ", h("code", {}, "teleconsult join CODE"),
      `. ${many ? "Each is" : "It is"} good once and for 14 days, and shown only now.`,
    ),
    h(
      "div",
      { class: "made-bar" },
      h("a", { class: "button", href: made.sheet, download: "kiosk-codes.pdf", "data-test": "sheet" }, icon("arrived"), "Save a sheet to print"),
      h("button", { type: "button", onclick: actions.putMadeAway, "data-test": "made-done" }, "Done"),
      h("span", { class: "quiet" }, "Keep it like a key: each code lets one kiosk in."),
    ),
    h("ol", { class: "codes" }, made.codes.map((each) => h("li", { key: each.code }, qrCode(each.qr), h("code", { "data-test": "code" }, lines(each.code))))),
  );
}

/** Four groups a line, as on the printed sheet. @param {string} code */
function lines(code) {
  const groups = code.split("-");
  const half = groups.length / 2;
  return [h("span", {}, `${groups.slice(0, half).join("-")}-`), h("span", {}, groups.slice(half).join("-"))];
}

/** @param {string[]} rows */
function qrCode(rows) {
  const side = rows.length + 2 * QR_BORDER;
  const dark = rows.flatMap((row, y) => [...row.matchAll(/1+/g)].map((run) => `M${run.index + QR_BORDER} ${y + QR_BORDER}h${run[0].length}v1h-${run[0].length}z`));
  return h(
    "svg",
    { class: "qr", viewBox: `0 0 ${side} ${side}`, role: "img", "aria-label": "QR code", "shape-rendering": "crispEdges" },
    h("path", { d: dark.join("") }),
  );
}

function givenOut(state, actions, now) {
  if (!state.invitations?.length) return false;
  return h(
    "details",
    { key: "given", "data-test": "invitations" },
    h("summary", {}, `Codes of the last 14 days: ${state.invitations.filter((card) => card.state === "open").length} not used yet`),
    h(
      "table",
      {},
      h("tbody", {}, state.invitations.map((card) => invitationRow(card, state, actions, now))),
    ),
  );
}

function invitationRow(card, state, actions, now) {
  return h(
    "tr",
    { key: card.number, "data-test": "invitation", "data-state": card.state },
    h("td", { class: "number" }, card.number),
    h("td", {}, card.site, card.replaces && h("span", { class: "id" }, `new hardware of ${card.kiosk}`)),
    h("td", { class: "number" }, `made ${clockTime(card.made_at, now)}`),
    h("td", {}, stateOf(card, now)),
    h(
      "td",
      { class: "row-actions" },
      card.state === "open" && h("button", { type: "button", disabled: state.busy, onclick: () => actions.withdraw(card.number), "data-test": "withdraw" }, "Withdraw"),
    ),
  );
}

function stateOf(card, now) {
  if (card.state === "used") return h("span", { class: "quiet" }, `used by ${card.kiosk}`);
  if (card.state === "withdrawn") return h("span", { class: "quiet" }, "withdrawn");
  return `good until ${day(card.expires_at, now)}`;
}
