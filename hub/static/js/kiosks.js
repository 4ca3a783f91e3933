/** The kiosks as machines: how each is, and what a technician does with it. */

import { approvalsPart } from "./approvals.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { invitationsPart } from "./invitations.js";
import { ago, clockTime, count, day, missingLabel, warningLabel } from "./labels.js";
import { selfTestPart } from "./selftest.js";

const SOON_MS = 10 * 60_000; // a line that is away for so long is not yet news
const RENEWED_BEFORE_MS = 29 * 86_400_000; // of its end, if all is well: then a certificate has 30 days left

/**
 * @typedef {{at_ms: number, day_bytes: number, month_bytes: number, day_limit: number, month_limit: number,
 *   month_cost: number, currency: string, held: string, held_until_ms: number}} Spent
 * @typedef {{kiosk: string, site: string, joined_at: number, online: boolean, last_seen: number, software: string,
 *   missing: string[], warnings: string[], clock_trusted: boolean, language: string, certificate_until: number,
 *   asking: import("./approvals.js").Asking[], spent: Spent?}} KioskCard
 */

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function kiosksPage(state, actions, now) {
  const { kiosks } = state;
  return h(
    "div",
    { class: "office-page", key: "kiosks" },
    state.permissions.includes("approve_kiosks") && approvalsPart(state, actions, now),
    state.permissions.includes("invite_kiosks") && invitationsPart(state, actions, now),
    kiosks === null
      ? h("p", { class: "empty" }, "Fetching…")
      : kiosks.length
        ? kioskTable(kiosks, state, actions, now)
        : h("p", { class: "empty" }, "No kiosk has joined yet."),
    selfTestPart(state, actions),
  );
}

function kioskTable(kiosks, state, actions, now) {
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
      h("thead", {}, h("tr", {}, ["Clinic", "State", "To look after", "Certificate", "Software", ""].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, sorted.map((card) => kioskRow(card, state, actions, now))),
    ),
  );
}

function kioskRow(card, state, actions, now) {
  const { spent } = card;
  const wrong = [...card.missing.map(missingLabel), ...card.warnings.map(warningLabel)];
  if (card.online && !card.clock_trusted) wrong.push("its clock is not set");
  if (late(card, now)) wrong.push(card.certificate_until > now ? "its certificate is not renewed" : "its certificate has run out");
  return h(
    "tr",
    { key: card.kiosk, "data-test": "kiosk", "data-kiosk": card.kiosk, "data-online": String(card.online) },
    h("th", { scope: "row" }, card.site || card.kiosk, card.site !== "" && h("span", { class: "id" }, card.kiosk)),
    h(
      "td",
      {},
      h("span", { class: card.online ? "with-icon online" : "with-icon offline" }, icon(card.online ? "link" : "linkOff"), seen(card, now)),
    ),
    h(
      "td",
      {},
      wrong.length ? h("span", { class: "with-icon offline" }, icon("alert"), wrong.join(", ")) : h("span", { class: "quiet" }, "nothing"),
      spent && h("div", { class: "quiet", "data-test": "spent", title: `as of ${clockTime(spent.at_ms, now)}` }, spentText(spent, now)),
    ),
    h("td", { class: "number" }, card.certificate_until ? `until ${day(card.certificate_until, now)}` : h("span", { class: "offline" }, "revoked")),
    h("td", { title: `joined ${clockTime(card.joined_at, now)}` }, card.software || "–"),
    h("td", { class: "row-actions" }, rowActions(card, state, actions)),
  );
}

function rowActions(card, state, actions) {
  if (state.asked === card.kiosk) {
    return [
      h("span", { class: "quiet", key: "sure" }, "It is cut off at once, and needs a new code to come back."),
      h("button", { type: "button", key: "no", onclick: () => actions.ask("") }, "Cancel"),
      h("button", { class: "danger", type: "button", key: "yes", disabled: state.busy, onclick: () => actions.revoke(card.kiosk), "data-test": "revoke-sure" }, "Revoke"),
    ];
  }
  const may = (permission) => state.permissions.includes(permission);
  return [
    may("invite_kiosks") && h("button", { type: "button", key: "replace", disabled: state.busy, title: "A code with which another device takes this kiosk's place", onclick: () => actions.invite({ kiosk: card.kiosk }), "data-test": "replace" }, "New hardware"),
    may("revoke_kiosks") && card.certificate_until > 0 && h("button", { type: "button", key: "revoke", disabled: state.busy, onclick: () => actions.ask(card.kiosk), "data-test": "revoke" }, "Revoke"),
  ];
}

const MB = 1_000_000;
const megabytes = (bytes, limit) => `${(bytes / MB).toFixed(1)}${limit ? ` of ${(limit / MB).toFixed(1)}` : ""} MB`;
const HELD = { cheap_hours: "until sending is cheap", day: "until tomorrow", month: "until next month" };

/** What a metered link has carried. */
function spentText(spent, now) {
  const parts = [
    `${megabytes(spent.day_bytes, spent.day_limit)} today`,
    `${megabytes(spent.month_bytes, spent.month_limit)} this month`,
  ];
  if (spent.month_cost > 0) parts.push(`${spent.month_cost.toFixed(2)} ${spent.currency}`.trim());
  if (spent.held) parts.push(`photos wait ${spent.held_until_ms ? `until ${clockTime(spent.held_until_ms, now)}` : HELD[spent.held]}`);
  return parts.join(", ");
}

const seen = (card, now) => (card.online ? "online" : card.last_seen ? `last seen ${ago(card.last_seen, now)}` : "never seen");

const late = (card, now) => card.certificate_until > 0 && card.certificate_until - now < RENEWED_BEFORE_MS;

function trouble(card, now) {
  if (!card.certificate_until) return false;
  const away = !card.online && now - Math.max(card.last_seen, card.joined_at) > SOON_MS;
  return away || card.missing.length > 0 || card.warnings.length > 0 || (card.online && !card.clock_trusted) || late(card, now);
}
