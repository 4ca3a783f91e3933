// The kiosk's page. It is a function of the last View (kiosk/screen.py) and, for a running clock, of the time; it knows
// no words. What it keeps to itself is what a hand has half done: digits of the PIN, the consult or advice looked at.
//
// Hooks for tests:
//   document.body.dataset.screen    the View's screen; "pin" and "worker" for the worker's face; "starting" when there is
//                                   no agent. dataset.far is "shown" while #far holds a far picture; dataset.views
//                                   counts the Views shown.
//   #far                            canvas of the far picture; canvas.own is the kiosk's own while a photo is taken
//   data-test on buttons            big, cancel, end, decline, leave_message, dismiss, show_advice, play_advice,
//                                   language-<code>, worker, lock, new_case, pin-<digit>, pin-erase, pin-ok,
//                                   consult-<id>, record, discard_voice, photo, discard_photo-<id>, complaint-<code>,
//                                   urgency-<value>, step-<step>, review-<step>, back, next, save, save_now
//   data-test on fields             patient, text
//   data-test on what is shown      title, presence, lamp, doctor, time, connecting, stalled, line, instruction, heard
//                                   (data-reached), heard-<who>, delivery (data-step), delivery-<step>, recorded, level,
//                                   no_camera, advice, advice-text, voice_coming, was_heard, notice-<code>, pin_error, digits, details, unsent, all_sent,
//                                   worker_name, locks_in, training, turns (data-now idle|speaking|playing|far), sent
//                                   (data-sent), waiting

import { h, loadDrawings, patch } from "./dom.js";
import { draft } from "./draft.js";
import { BigButton } from "./hold.js";
import { Lamp, lampColour, loadPatterns } from "./lamp.js";
import { PATIENT_SCREENS, starting } from "./patient.js";
import { Pictures, picturesAs } from "./pictures.js";
import { Socket } from "./socket.js";
import { MAX_PIN_DIGITS, consults, keypad } from "./worker.js";

const REPEAT_MS = 400; // a second tap of a trembling hand is not a second wish
const TOUCH_EVERY_MS = 5000;
const FIELD_WAIT_MS = 400;
const IN_CALL = new Set(["claimed", "live", "lost", "turns"]);
const SCREENS = { ...PATIENT_SCREENS, draft, pin: keypad, worker: consults };

const root = document.getElementById("root");
const local = { pin: "", pinError: "", consult: "", advice: "" };
let view = null;
let connected = false;
let lamp = null;
let lastAction = { text: "", at: -Infinity };

let socket = null;

const pictures = new Pictures(document.getElementById("far"), () => send({ do: "key_frame" }));

async function start() {
  const pictureKind = picturesAs();
  const [patterns] = await Promise.all([loadPatterns(), loadDrawings()]);
  lamp = new Lamp(patterns, (...step) => document.body.style.setProperty("--lamp", lampColour(...step)));
  render();
  socket = new Socket("/ws", {
    opened: async () => send({ do: "pictures_as", value: await pictureKind }),
    closed: () => {
      connected = false;
      render();
    },
    text: (text) => {
      connected = true;
      view = JSON.parse(text);
      render();
      document.body.dataset.views = Number(document.body.dataset.views ?? 0) + 1;
    },
    picture: (buffer) => pictures.take(buffer),
  });
}

function send(action) {
  return socket?.send(action);
}

/** Which face and screen a View asks for. */
function screenOf(view) {
  if (!connected || !view) return "starting";
  if (view.screen === "idle" && view.worker_face === "pin") return "pin";
  if (view.screen === "idle" && view.worker_face === "open" && view.worker) return "worker";
  return view.screen in SCREENS ? view.screen : "starting";
}

function render() {
  const screen = screenOf(view);
  const before = document.body.dataset.screen;
  if (IN_CALL.has(before) && !IN_CALL.has(screen)) pictures.clear();
  if (screen !== "pin") local.pin = "";
  else if (view.pin_error !== local.pinError) local.pin = "";
  local.pinError = view?.pin_error ?? "";
  if (view && screen !== "worker" && view.worker_face !== "open") local.consult = "";
  const { dataset } = document.body;
  dataset.screen = screen;
  dataset.light = screen === "starting" ? "off" : view.light;
  dataset.emergency = String(Boolean(view?.call?.emergency));
  if (screen === "pin") dataset.keypad = "";
  else delete dataset.keypad;
  document.documentElement.lang = view?.language ?? "en";
  if (lamp) lamp.light = dataset.light;
  const next = h("div", { id: "root" });
  if (view?.simulated && screen !== "starting") {
    next.append(h("p.training", { "data-key": "training", "data-test": "training" }, view.words.training));
  }
  next.append(...(screen === "starting" ? starting(view?.words) : SCREENS[screen](view, Date.now(), local)).filter(Boolean));
  patch(root, next);
}

// --- hands

new BigButton(document.getElementById("hold"), (action) => act(action));

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-do], [data-pin], [data-consult]");
  if (!pressed) return;
  if (event.detail > 0) pressed.blur(); // touched, not tabbed to: the key Enter stays the big button
  if (pressed.dataset.pin) pinKey(pressed.dataset.pin);
  else if (pressed.dataset.consult) {
    local.consult = pressed.dataset.consult;
    render();
  } else {
    if (/^(show|play)_advice$/.test(pressed.dataset.do)) local.advice = pressed.dataset.value;
    act({ do: pressed.dataset.do, value: pressed.dataset.value ?? "" });
  }
});

// The worker's face locks when it is left alone; reading and scrolling are not leaving it alone.
let touchedAt = -Infinity;
document.addEventListener("pointerdown", () => {
  if (document.body.dataset.screen !== "worker" || performance.now() - touchedAt < TOUCH_EVERY_MS) return;
  touchedAt = performance.now();
  send({ do: "worker" });
});

function act(action) {
  flushField();
  const text = JSON.stringify(action);
  const now = performance.now();
  if (text === lastAction.text && now - lastAction.at < REPEAT_MS) return;
  lastAction = { text, at: now };
  send(action);
}

function pinKey(key) {
  if (key === "ok") {
    if (local.pin) send({ do: "pin", value: local.pin });
    local.pin = "";
  } else if (key === "erase") local.pin = local.pin.slice(0, -1);
  else if (local.pin.length < MAX_PIN_DIGITS) local.pin += key;
  render();
}

document.addEventListener("keydown", (event) => {
  if (document.body.dataset.screen !== "pin" || event.target.closest("button:focus-visible")) return;
  if (/^[0-9]$/.test(event.key)) pinKey(event.key);
  else if (event.key === "Backspace") pinKey("erase");
  else if (event.key === "Enter") pinKey("ok");
});

// --- the worker's fields: sent while they are written, so that a crash loses a few letters at most

let field = null;
let fieldTimer = 0;

document.addEventListener("input", (event) => {
  if (!event.target.dataset.field) return;
  if (field !== event.target) flushField();
  field = event.target;
  clearTimeout(fieldTimer);
  fieldTimer = setTimeout(flushField, FIELD_WAIT_MS);
});
document.addEventListener("focusout", flushField);

function flushField() {
  if (!field) return;
  clearTimeout(fieldTimer);
  send({ do: field.dataset.field, value: field.value });
  field = null;
}

// --- clocks that run on the screen

setInterval(() => {
  if (connected && (view.call?.live_since_ms || view.worker)) render();
}, 1000);

// The agent may end while the page loads: then from the start.
start().catch(() => setTimeout(() => location.reload(), 1000));
