/** The kiosks as machines: how each is, and codes for new ones. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { ago, clockTime, count, languageLabel, missingLabel, warningLabel } from "./labels.js";

const SOON_MS = 10 * 60_000; // a line that is away for so long is not yet news

/**
 * @typedef {{kiosk: string, site: string, joined_at: number, online: boolean, last_seen: number, software: string,
 *   missing: string[], warnings: string[], clock_trusted: boolean, language: string}} KioskCard
 */

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function kiosksPage(state, actions, now) {
  const { kiosks } = state;
  return h(
    "div",
    { class: "office-page", key: "kiosks" },
    state.permissions.includes("invite_kiosks") && invitePart(state, actions),
    kiosks === null
      ? h("p", { class: "empty" }, "Fetching…")
      : kiosks.length
        ? kioskTable(kiosks, now)
        : h("p", { class: "empty" }, "No kiosk has joined yet."),
  );
}

function kioskTable(kiosks, now) {
  const rank = (card) => (trouble(card, now) ? 0 : 1);
  const sorted = [...kiosks].sort((a, b) => rank(a) - rank(b) || a.site.localeCompare(b.site) || a.kiosk.localeCompare(b.kiosk));
  const online = kiosks.filter((card) => card.online).length;
  const troubled = kiosks.filter((card) => trouble(card, now)).length;
  return h(
    "section",
    { class: "panel", key: "list" },
    h(
      "h2",
      {},
      count(kiosks.length, "kiosk"),
      h("span", { class: "quiet" }, `${online} online`, troubled > 0 && `, ${troubled} to look after`),
    ),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["Clinic", "State", "To look after", "Software", "Language", "Joined"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, sorted.map((card) => kioskRow(card, now))),
    ),
  );
}

function kioskRow(card, now) {
  const wrong = [...card.missing.map(missingLabel), ...card.warnings.map(warningLabel)];
  if (card.online && !card.clock_trusted) wrong.push("its clock is not set");
  return h(
    "tr",
    { key: card.kiosk, "data-test": "kiosk", "data-kiosk": card.kiosk, "data-online": String(card.online) },
    h("th", { scope: "row" }, card.site || card.kiosk, card.site !== "" && h("span", { class: "id" }, card.kiosk)),
    h(
      "td",
      {},
      h("span", { class: card.online ? "with-icon online" : "with-icon offline" }, icon(card.online ? "link" : "linkOff"), seen(card, now)),
    ),
    h("td", {}, wrong.length ? h("span", { class: "with-icon offline" }, icon("alert"), wrong.join(", ")) : h("span", { class: "quiet" }, "nothing")),
    h("td", {}, card.software || "–"),
    h("td", {}, languageLabel(card.language)),
    h("td", {}, clockTime(card.joined_at, now)),
  );
}

const seen = (card, now) => (card.online ? "online" : card.last_seen ? `last seen ${ago(card.last_seen, now)}` : "never seen");

function trouble(card, now) {
  const away = !card.online && now - Math.max(card.last_seen, card.joined_at) > SOON_MS;
  return away || card.missing.length > 0 || card.warnings.length > 0 || (card.online && !card.clock_trusted);
}

function invitePart(state, actions) {
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    actions.invite(String(form.get("site")), Number(form.get("count")));
  };
  return h(
    "section",
    { class: "panel", key: "invite" },
    h("h2", {}, "New kiosks"),
    h(
      "form",
      { class: "line-form", onsubmit: submit },
      h("label", {}, "Clinic, as doctors shall see it", h("input", { name: "site", required: true, maxlength: "200", "data-test": "invite-site" })),
      h("label", { class: "short" }, "Codes", h("input", { name: "count", type: "number", min: "1", max: "50", value: "1", required: true })),
      h("button", { class: "primary", type: "submit", disabled: state.busy, "data-test": "invite-submit" }, "Make codes"),
    ),
    state.codes.length > 0 &&
      h(
        "div",
        { class: "made", role: "status", "data-test": "codes" },
        h("p", {}, "On the kiosk: ", h("code", {}, "teleconsult join CODE"), ". Each code is good once and for 14 days. They are shown only now."),
        h("ol", { class: "codes" }, state.codes.map((code) => h("li", { key: code }, h("code", {}, code)))),
        h("button", { type: "button", onclick: actions.putMadeAway }, "Done"),
      ),
  );
}
