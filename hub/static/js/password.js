/** Changing one's own password: a dialog over the work, or the whole page where it must be done first. */

import { h } from "./dom.js";
import { icon } from "./icons.js";

/** @param {import("./state.js").State} state @param {any} actions */
export function passwordPage(state, actions) {
  return h(
    "main",
    { class: "sign-in", key: "password" },
    h(
      "div",
      { class: "sign-in-card" },
      h("div", { class: "sign-in-mark" }, icon("key")),
      h("h1", {}, "Choose your own password"),
      h("p", { class: "quiet" }, "The one you signed in with was made for you by somebody else. Nobody but you should know the new one."),
      form(state, actions),
      h("button", { class: "plain wide", type: "button", onclick: actions.signOut }, "Sign out"),
    ),
  );
}

/** @param {import("./state.js").State} state @param {any} actions */
export function passwordDialog(state, actions) {
  if (!state.password.open || state.screen === "password") return false;
  return h(
    "dialog",
    {
      class: "card-dialog", key: "password-dialog", "aria-labelledby": "password-title", "data-test": "password-dialog",
      onclose: actions.closePassword, created: (element) => queueMicrotask(() => element.showModal()),
    },
    h("h2", { id: "password-title" }, "Change your password"),
    h("p", { class: "quiet" }, "You will be signed out everywhere else."),
    form(state, actions, h("button", { type: "button", onclick: actions.closePassword }, "Cancel")),
  );
}

function form(state, actions, beside) {
  const { busy, error } = state.password;
  const submit = (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    actions.changePassword(String(given.get("old")), String(given.get("new")), String(given.get("again")));
  };
  return h(
    "form",
    { class: "fields", onsubmit: submit },
    h("input", { type: "text", class: "unseen", autocomplete: "username", value: state.me, tabindex: "-1", readonly: true, "aria-hidden": "true" }),
    field("old", "Present password", "current-password"),
    field("new", "New password, at least 10 characters", "new-password"),
    field("again", "New password again", "new-password"),
    error && h("p", { class: "problem", role: "alert", "data-test": "password-error" }, icon("alert"), error),
    h(
      "div",
      { class: "fields-bar" },
      h("button", { class: "primary", type: "submit", disabled: busy, "data-test": "password-submit" }, busy ? "Changing…" : "Change password"),
      beside,
    ),
  );
}

function field(name, label, autocomplete) {
  return h(
    "label",
    { key: name },
    label,
    h("input", { name, type: "password", autocomplete, required: true, "data-test": `password-${name}` }),
  );
}
