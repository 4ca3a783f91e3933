// Pieces that several screens share. Every function gives elements for a View and knows no words of its own.

import { drawing, h, sign } from "./dom.js";

const NOTICE_SIGNS = {
  camera_missing: "no-camera",
  microphone_missing: "no-microphone",
  speaker_missing: "no-speaker",
  speech_missing: "no-speaker",
  button_missing: "button",
  button_stuck: "button",
  lamp_missing: "lamp",
  disk_low: "disk",
  disk_full: "disk",
  hub_unreachable: "offline",
  clock_wrong: "clock",
  messages_refused: "shield",
  messages_set_aside: "offline",
  not_joined: "shield",
  broker_refused: "shield",
  certificate_wrong: "shield",
  identity_in_use: "shield",
};
const PRESENCE_SIGNS = { here: "doctor", busy: "queue", nobody: "moon", offline: "offline" };
const DOCTOR_IS_HERE = new Set(["claimed", "incoming"]); // then who else might answer is no news
const LANGUAGES_ON = new Set(["idle", "offer", "ended", "saved", "emergency"]);
const DELIVERY = [
  ["saved", "i-kiosk"],
  ["received", "i-hub"],
  ["seen", "i-eye"],
  ["answered", "i-answer"],
  ["heard", "i-ear"],
];

/** A button that sends `action` ({do, value}) when it is clicked; `test` is its data-test. */
export function button(action, test, { icon, label, kind = "", disabled = false, key, ...rest } = {}, ...children) {
  return h(
    "button.button",
    {
      type: "button",
      class: kind,
      "data-do": action.do,
      "data-value": action.value,
      "data-test": test,
      "data-key": key,
      "aria-label": label,
      disabled,
      ...rest,
    },
    icon && (icon.includes("-") && /^[cpu]-/.test(icon) ? drawing(icon) : sign(icon)),
    children.length ? children : label && h("span", {}, label),
  );
}

/** The one big button; hold.js hears it. */
export function bigButton(view, { label = view.words.call, icon = "p-press", size = "", bare = false } = {}) {
  return h(
    "button.big",
    { type: "button", class: `${size} ${bare ? "bare" : ""}`, "data-hold": true, "data-test": "big", "data-key": "big", "aria-label": label },
    drawing(icon),
    !bare && h("span", {}, label),
  );
}

export function heading(view) {
  return h("div.heading", {}, h("h1", { "data-test": "title" }, view.title), view.detail && h("p", {}, view.detail));
}

export function header(view) {
  const { presence, words } = view;
  return h(
    "header",
    {},
    h("i.lamp", { "data-test": "lamp" }),
    !DOCTOR_IS_HERE.has(view.screen) && h(
      "div.presence",
      { class: presence.state, "data-test": "presence", role: "status" },
      sign(PRESENCE_SIGNS[presence.state]),
      presence.state === "busy" && presence.position > 0 && h("b", {}, String(presence.position)),
      h("span", {}, presence.text),
    ),
    noticesSpelledOut(view) ? h("div.notices") : notices(view),
    LANGUAGES_ON.has(view.screen) &&
      view.languages.length > 1 &&
      h(
        "nav.languages",
        {},
        view.languages.map((code) =>
          button({ do: "language", value: code }, `language-${code}`, {
            kind: code === view.language ? "plain chosen" : "plain",
            label: words[`language_${code}`] ?? code,
            "aria-pressed": String(code === view.language),
          }),
        ),
      ),
    view.screen === "idle" &&
      view.worker_face === "locked" &&
      button({ do: "worker" }, "worker", { icon: "key", kind: "plain key", label: words.worker }, []),
  );
}

/** Where the figure's side has room, the notices stand there with their words; elsewhere as signs in the top line. */
export const noticesSpelledOut = (view) => view.screen === "idle" && view.advice.length === 0;

export function notices(view) {
  const told = view.presence.state === "offline" ? "hub_unreachable" : ""; // by the presence line
  return h("div.notices", {}, view.notices.filter(({ code }) => code !== told).map(notice));
}

function notice({ code, text }) {
  return h(
    "div.notice",
    { "data-test": `notice-${code}`, title: text },
    sign(NOTICE_SIGNS[code] ?? "warning"),
    h("span", {}, text),
  );
}

/** How far the press has come: this machine, the hub, a person. */
export function heard(view) {
  const order = ["machine", "hub", "person"];
  const reached = order.indexOf(view.call?.heard_by ?? "machine");
  const pictures = ["i-kiosk", "i-hub", "p-doctor-face"];
  return h(
    "ol.heard",
    { "data-test": "heard", "data-reached": order[reached] },
    order.map((who, index) =>
      h(
        "li",
        { class: index <= reached ? "lit" : index === reached + 1 ? "next" : "", "data-test": `heard-${who}` },
        h("div.disc", {}, drawing(pictures[index]), index <= reached && sign("check", "tick")),
        h("span", {}, view.words[`heard_${who}`]),
      ),
    ),
  );
}

/** The delivery steps of a consult, each backed by a receipt from the far end, with the times of what was reached. */
export function delivery(view, step, times = {}) {
  const order = DELIVERY.map(([name]) => name);
  const reached = step === "closed" ? order.length - 1 : order.indexOf(step);
  return h(
    "ol.delivery",
    { "data-test": "delivery", "data-step": step ?? "" },
    DELIVERY.map(([name, picture], index) =>
      h(
        "li",
        { class: index <= reached ? "lit" : index === reached + 1 ? "next" : "", "data-test": `delivery-${name}` },
        h("div.disc", {}, drawing(picture), index <= reached && sign("check", "tick")),
        h("span", {}, view.words[`step_${name}`]),
        index <= reached && times[name] > 0 && h("time", {}, when(view, times[name])),
      ),
    ),
  );
}

/** That something waits here, and since when. */
export function unsent(view, sinceMs) {
  return sinceMs > 0 && h("p.unsent", { "data-test": "unsent" }, sign("offline"), `${view.words.unsent} ${when(view, sinceMs)}`);
}

export function minutes(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  return `${hours ? `${hours}:` : ""}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

export function when(view, unixMs) {
  const date = new Date(unixMs);
  const today = date.toDateString() === new Date().toDateString();
  const form = today ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(view.language, form).format(date);
}
