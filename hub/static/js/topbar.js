/** Own availability, the other doctors, the link to the hub, and what the page wants to ask or say. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { duration } from "./labels.js";
import { inCall } from "./state.js";

const SHOWN_DOCTORS = 3;

/** @param {import("./state.js").State} state @param {any} actions @param {number} now */
export function topBar(state, actions, now) {
  return h(
    "header",
    { class: "top-bar", key: "top" },
    h("div", { class: "brand" }, h("span", { class: "brand-mark" }, icon("cross")), h("span", { class: "brand-name" }, "Doctor's console")),
    availability(state, actions),
    otherDoctors(state),
    linkState(state, now),
    h(
      "div",
      { class: "me" },
      h("span", { class: "me-name", title: state.me }, state.me),
      h("button", { class: "plain square", type: "button", "aria-label": "Change your password", title: "Change your password", onclick: actions.openPassword, "data-test": "password-open" }, icon("key")),
      h("button", { class: "plain", type: "button", onclick: actions.signOut, "data-test": "sign-out" }, "Sign out"),
    ),
  );
}

function availability(state, actions) {
  const { available } = state;
  return h(
    "div",
    { class: "availability" },
    h(
      "button",
      {
        class: available ? "switch on" : "switch", type: "button", role: "switch", "aria-checked": String(available),
        onclick: () => actions.setAvailable(!available, ""), disabled: state.link !== "up", "data-test": "available",
        title: available ? "Calls ring here. Press to go away." : "No call rings here but emergencies. Press to come back.",
      },
      h("span", { class: "switch-knob" }),
      h("span", { class: "switch-word" }, available ? "Available" : "Away"),
    ),
    !available &&
      h(
        "label",
        { class: "back-at" },
        "back at",
        h("input", {
          type: "time", value: state.until, disabled: state.link !== "up", "data-test": "away-until",
          onchange: (event) => actions.setAvailable(false, event.target.value),
        }),
      ),
  );
}

function otherDoctors(state) {
  const others = state.doctors.filter((doctor) => doctor.name !== state.me);
  const rank = (doctor) => (doctor.in_call ? 1 : doctor.available ? 0 : 2);
  const shown = [...others].sort((a, b) => rank(a) - rank(b)).slice(0, SHOWN_DOCTORS);
  const word = (doctor) => (doctor.in_call ? "in a call" : doctor.available ? "available" : "away");
  const sign = (doctor) => (doctor.in_call ? "busy" : doctor.available ? "free" : "away");
  return h(
    "ul",
    { class: "doctors", "aria-label": "Other doctors" },
    shown.map((doctor) =>
      h(
        "li",
        { key: doctor.name, title: `${doctor.name}, ${word(doctor)}` },
        h("span", { class: `dot ${sign(doctor)}` }),
        h("span", { class: "doctor-name" }, doctor.name),
        h("span", { class: "quiet" }, word(doctor)),
      ),
    ),
    others.length > SHOWN_DOCTORS && h("li", { key: "+" }, `+ ${others.length - SHOWN_DOCTORS}`),
  );
}

function linkState(state, now) {
  const up = state.link === "up";
  const text = up ? "Connected" : state.link === "down" ? `Hub not reached ${duration(now - state.linkSince)}` : "Connecting…";
  return h(
    "div",
    { class: up ? "link up" : "link down", "data-test": "link-state", "data-state": state.link, title: up ? "Connected to the hub" : "Trying again by itself" },
    icon(up ? "link" : "linkOff"),
    h("span", {}, text),
  );
}

/** Hints and messages in a line under the top bar. @param {any} ringer */
export function notices(state, actions, ringer) {
  const away = state.link === "down" && state.linkSince;
  return h(
    "div",
    { class: "notices", key: "notices" },
    away &&
      h(
        "p",
        { class: "notice warn", key: "link" },
        icon("linkOff"),
        h("span", {}, "The line to the hub is down: no call can ring here. It is tried again all the time; a call under way goes on."),
      ),
    !ringer.soundAllowed &&
      h(
        "p",
        { class: "notice warn", key: "sound" },
        icon("soundOff"),
        h("span", {}, "This browser keeps the page silent until you press something: a call could not be heard."),
        h("button", { type: "button", onclick: () => void ringer.allowSound(), "data-test": "sound-on" }, icon("sound"), "Turn on sound"),
      ),
    ringer.soundAllowed && ringer.mayAskToNotify && !state.notifyLater && !inCall(state) &&
      h(
        "p",
        { class: "notice", key: "notify" },
        icon("bell"),
        h("span", {}, "Calls can also be shown by your system while another window is in front."),
        h("button", { type: "button", onclick: () => void ringer.askToNotify(), "data-test": "notify-on" }, "Allow"),
        h("button", { class: "plain", type: "button", onclick: actions.notifyLater, "data-test": "notify-later" }, "Not now"),
      ),
    state.notices.map(({ id, text }) =>
      h(
        "p",
        { class: "notice problem-notice", key: `n${id}`, "data-test": "notice" },
        icon("alert"),
        h("span", {}, text),
        h("button", { class: "plain square", type: "button", "aria-label": "Dismiss", onclick: () => actions.dismiss(id) }, icon("close")),
      ),
    ),
  );
}
