/** Accounts: who may sign in, as what. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { clockTime, roleLabel } from "./labels.js";

const ROLES = ["doctor", "technician", "administrator"];

/**
 * @typedef {{id: number, name: string, role: string, disabled: boolean, must_change: boolean, created_at: number}}
 *   AccountCard
 */

/** @param {import("./office.js").OfficeState} state @param {any} actions @param {number} now */
export function accountsPage(state, actions, now) {
  return h(
    "div",
    { class: "office-page", key: "accounts" },
    addPart(state, actions),
    state.made &&
      h(
        "section",
        { class: "panel made", key: "made", role: "status", "data-test": "made" },
        h("p", {}, "Password of ", h("strong", {}, state.made.name), ", shown only now. Its one use is to choose a password of one's own."),
        h("p", {}, h("code", { class: "secret", "data-test": "made-password" }, state.made.password)),
        h("button", { type: "button", onclick: actions.putMadeAway, "data-test": "made-done" }, "Done"),
      ),
    state.accounts === null ? h("p", { class: "empty" }, "Fetching…") : accountTable(state, actions, now),
  );
}

function addPart(state, actions) {
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    actions.addAccount(String(form.get("name")), String(form.get("role"))).then((added) => added && event.target.reset());
  };
  return h(
    "section",
    { class: "panel", key: "add" },
    h("h2", {}, "New account"),
    h(
      "form",
      { class: "line-form", onsubmit: submit },
      h("label", {}, "Name, as patients and colleagues shall see it", h("input", { name: "name", required: true, maxlength: "100", autocomplete: "off", "data-test": "account-name" })),
      h("label", { class: "short" }, "Role", h("select", { name: "role", "data-test": "account-role" }, ROLES.map((role) => h("option", { value: role }, roleLabel(role))))),
      h("button", { class: "primary", type: "submit", disabled: state.busy, "data-test": "account-add" }, "Add account"),
    ),
  );
}

function accountTable(state, actions, now) {
  return h(
    "section",
    { class: "panel", key: "list" },
    h("h2", {}, "Accounts"),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["Name", "Role", "State", "Added", ""].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, byName(state.accounts).map((card) => accountRow(card, state, actions, now))),
    ),
  );
}

const byName = (cards) => [...cards].sort((a, b) => a.name.localeCompare(b.name));

function accountRow(card, state, actions, now) {
  const own = card.name === state.me;
  const asked = state.asked === card.id;
  return h(
    "tr",
    { key: String(card.id), "data-test": "account", "data-name": card.name, "data-disabled": String(card.disabled) },
    h("th", { scope: "row" }, card.name, own && h("span", { class: "id" }, "you")),
    h(
      "td",
      {},
      own
        ? roleLabel(card.role)
        : h(
            "select",
            { value: card.role, "aria-label": `Role of ${card.name}`, disabled: state.busy, onchange: (event) => actions.setRole(card, event.target.value) },
            ROLES.map((role) => h("option", { value: role, selected: role === card.role }, roleLabel(role))),
          ),
    ),
    h("td", {}, stateOf(card)),
    h("td", {}, clockTime(card.created_at, now)),
    h(
      "td",
      { class: "row-actions" },
      !own && asked && h("span", { class: "quiet", key: "sure" }, "This signs the account out."),
      !own && asked && h("button", { type: "button", key: "no", onclick: () => actions.ask(0) }, "Cancel"),
      !own && asked && h("button", { class: "danger", type: "button", key: "yes", disabled: state.busy, onclick: () => actions.resetPassword(card), "data-test": "reset-sure" }, "New password"),
      !own && !asked && !card.disabled && h("button", { type: "button", key: "reset", onclick: () => actions.ask(card.id), "data-test": "reset" }, icon("key"), "New password"),
      !own && !asked &&
        h("button", { type: "button", key: "disable", disabled: state.busy, onclick: () => actions.setDisabled(card, !card.disabled), "data-test": "disable" }, card.disabled ? "Let in again" : "Disable"),
    ),
  );
}

function stateOf(card) {
  if (card.disabled) return h("span", { class: "offline" }, "disabled");
  return card.must_change ? h("span", { class: "quiet" }, "has not yet chosen a password") : h("span", { class: "online" }, "active");
}
