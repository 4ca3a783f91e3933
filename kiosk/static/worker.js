// The worker's face: the keypad, then the consults of this kiosk with their steps and the doctor's advice.

import { drawing, h, sign } from "./dom.js";
import { picture } from "./draft.js";
import { button, delivery, minutes, unsent, when } from "./parts.js";
import { adviceCard } from "./patient.js";

export const MAX_PIN_DIGITS = 12;
const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "erase", "0", "ok"];

export function keypad(view, now, local) {
  const { words } = view;
  return [
    h(
      "main.keypad",
      { "data-key": "keypad" },
      h(
        "div.side",
        {},
        h("div.disc", {}, sign("key")),
        h("h1", { "data-test": "title" }, words.worker),
        h("p", {}, words.pin_title),
        h(
          "div.digits",
          { "data-test": "digits" },
          Array.from({ length: Math.max(4, local.pin.length) }, (_, index) =>
            h("i", { class: index < local.pin.length ? "typed" : "" }),
          ),
        ),
        view.pin_error && h("p.error", { role: "alert", "data-test": "pin_error" }, sign("warning"), view.pin_error),
        button({ do: "lock" }, "lock", { icon: "back", label: words.back, kind: "quiet" }),
      ),
      h(
        "div.keys",
        {},
        KEYS.map((key) =>
          key === "ok"
            ? h("button.button.go", { type: "button", "data-pin": key, "data-test": "pin-ok", disabled: !local.pin }, words.ok)
            : h(
                "button.button.plain",
                { type: "button", "data-pin": key, "data-test": `pin-${key}`, "aria-label": words[key] ?? key },
                key === "erase" ? sign("erase") : key,
              ),
        ),
      ),
    ),
  ];
}

export function consults(view, now, local) {
  const { worker, words } = view;
  const chosen = worker.consults.find((consult) => consult.id === local.consult);
  return [
    h(
      "header.worker-bar",
      {},
      h("div.who", {}, sign("person"), h("b", { "data-test": "worker_name" }, worker.name)),
      worker.consults.length > 0 &&
        h(
          "div.sent",
          { class: worker.unsent ? "waits" : "", "data-test": "all_sent", "data-unsent": String(worker.unsent) },
          sign(worker.unsent ? "offline" : "check"),
          worker.unsent ? h("b", {}, String(worker.unsent)) : false,
          h("span", {}, worker.unsent ? `${words.unsent} ${when(view, worker.unsent_since_ms)}` : words.all_sent),
        ),
      h(
        "div.locks",
        { "aria-label": words.locks_in, "data-test": "locks_in" },
        sign("clock"),
        h("time", {}, minutes(worker.locks_at_ms - now)),
      ),
      button({ do: "new_case" }, "new_case", { icon: "plus", label: words.new_case, kind: "go" }),
      button({ do: "lock" }, "lock", { icon: "lock", label: words.lock, kind: "quiet" }),
    ),
    h(
      "main.consults",
      { "data-key": "consults" },
      worker.consults.length === 0
        ? h("p.empty", {}, sign("list"), words.no_consults)
        : [
            h("ul.list", { "data-key": "list" }, worker.consults.map((consult) => row(view, consult, consult === chosen))),
            chosen
              ? details(view, chosen)
              : h(
                  "div.details.empty",
                  { "data-key": "none" },
                  sign("list"),
                  h("p", {}, words.choose_consult),
                  worker.budget.map((line) => h("p.budget", { "data-test": "budget" }, line)),
                ),
          ],
    ),
  ];
}

function row(view, consult, chosen) {
  const { words } = view;
  return h(
    "li",
    { "data-key": consult.id },
    h(
      "button.consult",
      {
        type: "button",
        class: `${chosen ? "chosen" : ""} ${consult.urgency}`,
        "data-consult": consult.id,
        "data-test": `consult-${consult.id}`,
        "aria-pressed": String(chosen),
      },
      drawing(`u-${consult.urgency}`),
      h(
        "div",
        {},
        h("b", {}, consult.patient || words.unnamed),
        h(
          "span",
          {},
          h("time", {}, when(view, consult.opened_at_ms)),
        ),
      ),
      h(
        "div",
        {},
        h(
          "span.step",
          { class: consult.step },
          consult.unsent_since_ms > 0 && sign("offline"),
          consult.advice.some((one) => !one.heard) && sign("answer"),
          consult.step_text || words[`step_${consult.step}`],
        ),
        h("span.pictograms", {}, consult.complaints.slice(0, 4).map((code) => drawing(picture(code)))),
      ),
    ),
  );
}

function details(view, consult) {
  const { words } = view;
  return h(
    "div.details",
    { "data-key": `details-${consult.id}`, "data-test": "details" },
    h("h2", {}, consult.patient || words.unnamed),
    h(
      "div.facts",
      {},
      h("span", {}, sign("clock"), when(view, consult.opened_at_ms)),
      h("span", {}, drawing(`u-${consult.urgency}`), words[`urgency_${consult.urgency}`]),
      consult.complaints.map((code) => h("span", {}, drawing(picture(code)), words[`complaint_${code}`] ?? code)),
      consult.cost && h("span", { "data-test": "cost" }, sign("hub"), consult.cost),
    ),
    delivery(view, consult.step, consult.step_times),
    unsent(view, consult.unsent_since_ms),
    consult.set_aside && h("p.unsent", { "data-test": "set_aside" }, sign("warning"), words.set_aside),
    consult.set_aside && button({ do: "send_again" }, "send_again", { icon: "again", label: words.send_again, kind: "plain" }),
    consult.advice.length
      ? consult.advice.map((one) => adviceCard(view, one))
      : h("p.no-advice", {}, sign("message"), words.advice_none),
  );
}
