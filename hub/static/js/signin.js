/** The sign-in page. */

import { h } from "./dom.js";
import { icon } from "./icons.js";

/** @param {import("./state.js").State} state @param {any} actions */
export function signInPage(state, actions) {
  const { busy, error } = state.signIn;
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    actions.signIn(String(form.get("name")), String(form.get("password")));
  };
  return h(
    "main",
    { class: "sign-in", key: "sign-in" },
    h(
      "form",
      { class: "sign-in-card", onsubmit: submit },
      h("div", { class: "sign-in-mark" }, icon("cross")),
      h("h1", {}, "Doctor's console"),
      h("p", { class: "quiet" }, "Sign in to see the waiting room and the cases."),
      h("label", { for: "name" }, "Name"),
      h("input", {
        id: "name", name: "name", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true,
        "data-test": "sign-in-name", created: (element) => requestAnimationFrame(() => element.focus()),
      }),
      h("label", { for: "password" }, "Password"),
      h("input", {
        id: "password", name: "password", type: "password", autocomplete: "current-password", required: true,
        "data-test": "sign-in-password",
      }),
      error && h("p", { class: "problem", role: "alert", "data-test": "sign-in-error" }, icon("alert"), error),
      h("button", { class: "primary wide", type: "submit", disabled: busy, "data-test": "sign-in-submit" }, busy ? "Signing in…" : "Sign in"),
    ),
  );
}
