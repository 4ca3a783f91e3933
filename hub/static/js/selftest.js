/** A kiosk's telephone code in words: what its self-test has found, as somebody at the clinic reads it out. */

import { h } from "./dom.js";
import { icon } from "./icons.js";

/**
 * @typedef {{code: string, groups: {number: number, name: string, verdict: "pass"|"warn"|"fail"|"untested"}[],
 *   what: string, do: string}} CodeHeard
 */

const VERDICTS = [["fail", "Failed"], ["warn", "Not quite right"], ["pass", "Good"], ["untested", "Not tested"]];

/** @param {import("./office.js").OfficeState} state @param {any} actions */
export function selfTestPart(state, actions) {
  const submit = (event) => {
    event.preventDefault();
    actions.decode(String(new FormData(event.target).get("code")));
  };
  return h(
    "section",
    { class: "panel", key: "selftest" },
    h("h2", {}, "Telephone code"),
    h(
      "form",
      { class: "line-form", onsubmit: submit },
      h("label", {}, "Ten digits that the kiosk shows or says after its self-test", h("input", { name: "code", required: true, maxlength: "40", inputmode: "numeric", autocomplete: "off", "data-test": "code-heard" })),
      h("button", { type: "submit", disabled: state.busy, "data-test": "code-decode" }, "What does it mean?"),
    ),
    state.heard && meaning(state.heard),
  );
}

/** @param {CodeHeard} heard */
function meaning(heard) {
  return h(
    "div",
    { key: "meaning", role: "status", "data-test": "code-meaning" },
    heard.what
      ? h("p", {}, h("span", { class: "with-icon offline" }, icon("alert"), h("strong", {}, heard.what)), " ", heard.do)
      : h("p", {}, "Nothing is wrong with what was tested."),
    VERDICTS.map(([verdict, text]) => {
      const groups = heard.groups.filter((group) => group.verdict === verdict);
      return groups.length > 0 && h("p", { key: verdict, "data-verdict": verdict }, h("strong", {}, `${text}: `), groups.map((group) => group.name).join(", "));
    }),
  );
}
