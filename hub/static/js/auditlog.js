/** The audit log, newest first. It holds ids; names of accounts are put to them here. */

import { h } from "./dom.js";
import { auditLabel, clockTime } from "./labels.js";

/** @typedef {{seq: number, at: number, who: string, what: string, about: string}} AuditLine */

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function auditPage(state, actions, now) {
  const { log } = state;
  return h(
    "div",
    { class: "office-page", key: "audit" },
    h(
      "section",
      { class: "panel", key: "head" },
      h("h2", {}, "Audit log"),
      h("p", { class: "quiet" }, "Every entry is chained to the one before. Note the head elsewhere from time to time: ", h("code", {}, "teleconsult hub audit verify --head HEAD"), " on the hub's machine then says whether anything was changed or cut off."),
      log && h("p", {}, "Head ", h("code", { class: "head", "data-test": "audit-head" }, log.head)),
    ),
    log === null ? h("p", { class: "empty" }, "Fetching…") : logTable(state, actions, now),
  );
}

function logTable(state, actions, now) {
  const { log } = state;
  const names = new Map((state.accounts ?? []).map((card) => [`account:${card.id}`, card.name]));
  return h(
    "section",
    { class: "panel", key: "list" },
    h(
      "table",
      { class: "log" },
      h("thead", {}, h("tr", {}, ["", "When", "Who", "What", "About"].map((text) => h("th", { scope: "col" }, text)))),
      h(
        "tbody",
        {},
        log.entries.map((line) =>
          h(
            "tr",
            { key: String(line.seq), "data-test": "audit-line", "data-what": line.what },
            h("td", { class: "number" }, line.seq),
            h("td", { class: "number" }, clockTime(line.at, now)),
            h("td", { title: line.who }, names.get(line.who) ?? who(line.who)),
            h("td", {}, auditLabel(line.what)),
            h("td", { class: "about", title: line.about }, line.about.split(" ").filter(Boolean).map((id) => about(id, names))),
          ),
        ),
      ),
    ),
    log.more && h("button", { class: "wide", type: "button", onclick: actions.olderLog, "data-test": "audit-older" }, "Show older ones"),
  );
}

function who(id) {
  const [kind, rest] = split(id);
  if (kind === "kiosk") return `kiosk ${rest}`;
  if (kind === "command") return "command on the hub";
  return id === "stranger" ? "nobody signed in" : id === "hub" ? "the hub" : id;
}

/** Long ids by their beginning: enough to tell them apart, and the whole one is the row's title. */
function about(id, names) {
  const [kind, rest] = split(id);
  if (kind === "account") return h("span", { class: "chip", key: id }, names.get(id) ?? id);
  return h("span", { class: "chip", key: id }, `${kind} ${rest.length > 16 ? `${rest.slice(0, 10)}…` : rest}`);
}

function split(id) {
  const at = id.indexOf(":");
  return at < 0 ? [id, ""] : [id.slice(0, at), id.slice(at + 1)];
}
