/** The call: what is known while media connects, the Answer, the live picture, the line lost, the end. */

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { lineView } from "./lineview.js";
import { duration, languageLabel, outcomeLabel, warningLabel } from "./labels.js";
import { callState } from "./state.js";

const GIVE_UP_MS = 60_000; // as at the hub: then the consult goes on as a message

/**
 * @param {import("./state.js").State} state @param {any} actions @param {import("./call.js").CallMedia} media
 * @param {import("./turns.js").Turns} turns
 * @param {number} now the hub's clock @param {number} localNow
 */
export function callView(state, actions, media, turns, now, localNow) {
  const { call } = state;
  const status = media.status();
  const phase = callState(state, status);
  const live = phase === "live" || phase === "lost" || phase === "turns";
  return h(
    "section",
    { class: `call ${phase}`, key: "call", "aria-label": `Call with ${call.site}`, "data-test": "call", "data-call": call.call },
    h(
      "div",
      { class: "stage" },
      media.farVideo,
      h(
        "header",
        { class: "stage-head" },
        call.emergency && h("span", { class: "emergency-tag" }, icon("alert"), "EMERGENCY"),
        h("strong", {}, call.site),
        live && h("span", { class: `pill ${phase}` }, { live: "Live", lost: "Line lost", turns: "In turns" }[phase]),
        live && call.answeredAt > 0 && h("time", { class: "elapsed", "data-test": "elapsed" }, duration(now - call.answeredAt)),
      ),
      !live && details(call, now),
      phase === "live" && lineView(status.line, media.lines),
      sharpPhoto(media.photo),
      phase === "turns" && whoSpeaks(turns.status(), call),
      h("p", { class: "call-words", "data-test": "call-words" }, words(call, phase, status, localNow)),
      h("div", { class: status.hasCamera && !status.cameraOff ? "own" : "own off" }, media.ownVideo, h("span", { class: "own-off" }, icon("cameraOff"))),
    ),
    deviceProblems(status, media),
    h("div", { class: "controls" }, controls(call, phase, state, status, actions, media, turns)),
  );
}

function controls(call, phase, state, status, actions, media, turns) {
  if (phase === "turns") return turnControls(status, actions, turns);
  return phase === "live" || phase === "lost" ? liveControls(call, status, actions, media) : heldControls(call, phase, state, actions);
}

const SENT = {
  sending: ["clock", "What you said is on its way"],
  delivered: ["arrived", "It has arrived at the clinic"],
  heard: ["heard", "The patient has heard you"],
};

/** In turns: who speaks, what waits to be heard, and how far the doctor's own words have come. */
function whoSpeaks(turns, call) {
  const now = turns.speaking ? "speaking" : turns.hearing || "quiet";
  const told = {
    speaking: ["microphone", `You speak – ${duration(turns.elapsedMs)}`],
    playing: ["sound", "The patient speaks"],
    coming: ["voice", "The patient is speaking – you hear it as soon as it is whole"],
    quiet: ["voice", call.kioskOnline ? "Nobody speaks" : "The kiosk's line to the hub is down – what you say waits for it"],
  }[now];
  const sent = SENT[turns.sent];
  return h(
    "div",
    { class: `who-speaks ${now}`, key: "turns", "data-test": "turn-state", "data-now": now, "data-waiting": String(turns.waiting), "data-sent": turns.sent },
    h("span", { class: "turns-sign" }, icon(told[0])),
    h("h2", {}, told[1]),
    turns.waiting > 0 && h("p", { class: "turns-waits" }, turns.waiting === 1 ? "One more turn to hear" : `${turns.waiting} more turns to hear`),
    sent && h("p", { class: `turns-sent ${turns.sent}` }, icon(sent[0]), sent[1]),
    turns.problem && h("p", { class: "turns-problem", role: "alert" }, turns.problem),
  );
}

function turnControls(status, actions, turns) {
  const { speaking } = turns.status();
  return [
    h(
      "button",
      {
        class: speaking ? "speak huge on" : "speak huge", type: "button", "aria-pressed": String(speaking), disabled: !status.hasMicrophone,
        onpointerdown: (event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          void turns.start();
        },
        onpointerup: () => turns.stop(), onpointercancel: () => turns.stop(), oncontextmenu: (event) => event.preventDefault(),
        "data-test": "turn-speak", key: "turn-speak", created: (element) => queueMicrotask(() => element.focus()),
      },
      icon("microphone"),
      speaking ? "Release to send" : "Hold to speak",
    ),
    h("span", { class: "key-hint", key: "key-hint" }, "or hold ", h("kbd", {}, "Space")),
    h("button", { class: "danger big", type: "button", onclick: actions.hangUp, "data-test": "hang-up", key: "hang-up" }, icon("hangUp"), "Hang up"),
  ];
}

function details(call, now) {
  const facts = [
    ["Kiosk", call.kiosk],
    call.requestedAt > 0 && ["Waiting for", duration(now - call.requestedAt)],
    call.language && ["Language", languageLabel(call.language)],
    call.warnings.length > 0 && ["Mind", call.warnings.map(warningLabel).join(", ")],
  ].filter(Boolean);
  return h(
    "div",
    { class: "details" },
    h("span", { class: "details-sign" }, icon(call.emergency ? "alert" : "phone")),
    h("h2", {}, call.site),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value)))),
  );
}

/** Where the call stands, in words. Also read out when it changes (`app.js`). */
export function words(call, phase, status, localNow) {
  if (phase === "lost") {
    const left = Math.ceil((GIVE_UP_MS - (localNow - status.lostSince)) / 1000);
    return left > 0
      ? `Line lost – it is being restored by itself, for ${left} s more`
      : "Line lost – waiting for the hub to end the call";
  }
  if (phase === "turns") {
    return "The line is too weak to talk live. Speak in turns: hold the button, speak, release. It goes live again by itself.";
  }
  if (phase === "live") {
    if (status.soundBlocked) return "The browser keeps the sound off – press anywhere to hear the patient";
    if (status.deaf) return "You hear the kiosk, but it does not hear you – trying again";
    if (!call.kioskOnline) return "The call goes on; the kiosk's line to the hub is down";
    const fewPictures = status.line?.picturesUp === "stills"; // the last one stays until the next
    return status.noPicture && !fewPictures ? "Sound only – no picture arrives" : "";
  }
  if (phase === "calling") {
    if (call.talking) return "The patient has answered – connecting…";
    return call.kioskOnline ? "Ringing at the kiosk – waiting for the patient to press the button" : "The kiosk has gone offline";
  }
  if (call.talking) return "Answered – connecting, you will be heard as soon as the line is up…";
  if (!call.kioskOnline) return "The kiosk has gone offline – it connects when it is back";
  return status.path === "up"
    ? "Connected and held – nobody hears or sees you until you answer"
    : "Connecting… – nobody hears or sees you until you answer";
}

/** @param {import("./photo.js").SharpPhoto} photo */
function sharpPhoto(photo) {
  if (!photo.asked && !photo.url && !photo.failed) return false;
  const percent = Math.round(100 * photo.share);
  const said = photo.failed ? "The kiosk's camera gave no photo" : photo.asked ? `The photo comes – ${photo.url ? `becoming sharper, ${percent} %` : "one moment"}` : "As sharp as it is";
  return h(
    "figure",
    { class: "sharp-photo", key: "sharp-photo", "data-test": "sharp-photo", "data-whole": String(Boolean(photo.url) && !photo.asked) },
    photo.url && h("img", { src: photo.url, alt: "Photo from the clinic, taken a moment ago" }),
    h("figcaption", {}, said, h("button", { type: "button", class: "on-dark", onclick: () => photo.close(), "data-test": "sharp-photo-close" }, icon("close"), "Close")),
  );
}

function deviceProblems(status, media) {
  const texts = ["audio", "video"].map((kind) => status.problems[kind]).filter(Boolean);
  if (!texts.length) return false;
  const what = status.problems.audio ? "The call goes on, but the patient cannot hear you." : "The call goes on with your voice only.";
  return h(
    "div",
    { class: status.problems.audio ? "devices bad" : "devices", key: "devices", role: "alert", "data-test": "device-problem" },
    icon(status.problems.audio ? "microphoneOff" : "cameraOff"),
    h("div", {}, h("strong", {}, what), texts.map((text) => h("p", { key: text }, text))),
    h("button", { type: "button", disabled: status.starting, onclick: () => void media.devices.retry(), "data-test": "devices-retry" }, "Try again"),
  );
}

function heldControls(call, phase, state, actions) {
  if (phase === "calling") {
    return [h("button", { class: "danger big", type: "button", onclick: actions.hangUp, "data-test": "hang-up", key: "hang-up" }, icon("hangUp"), "Stop ringing")];
  }
  const down = state.link !== "up";
  return [
    h(
      "button",
      {
        class: "answer huge", type: "button", onclick: actions.talk, disabled: call.talking, "data-test": "talk", key: "talk",
        created: (element) => queueMicrotask(() => element.focus()),
      },
      icon("phone"),
      call.talking ? "Answering…" : "Answer",
    ),
    h("button", { type: "button", class: "on-dark", onclick: actions.release, disabled: down || call.talking, title: "Back into the waiting room, for another doctor", "data-test": "release", key: "release" }, "Release"),
    h("button", { type: "button", class: "on-dark", onclick: actions.decline, disabled: down || call.talking, title: "No doctor will take it: the patient is asked to leave a message", "data-test": "decline", key: "decline" }, "Decline"),
    call.talking && h("button", { class: "danger big", type: "button", onclick: actions.hangUp, "data-test": "hang-up", key: "hang-up" }, icon("hangUp"), "Hang up"),
  ];
}

function liveControls(call, status, actions, media) {
  const { muted, cameraOff } = status;
  return [
    h(
      "button",
      {
        class: muted ? "on-dark off" : "on-dark", type: "button", "aria-pressed": String(muted), disabled: !status.hasMicrophone,
        onclick: () => media.setMuted(!muted), "data-test": "mute", key: "mute",
        created: (element) => queueMicrotask(() => element.focus()),
      },
      icon(muted ? "microphoneOff" : "microphone"),
      muted ? "Unmute" : "Mute",
    ),
    h(
      "button",
      {
        class: cameraOff ? "on-dark off" : "on-dark", type: "button", "aria-pressed": String(cameraOff), disabled: !status.hasCamera,
        onclick: () => media.setCameraOff(!cameraOff), "data-test": "camera", key: "camera",
      },
      icon(cameraOff ? "cameraOff" : "camera"),
      cameraOff ? "Camera on" : "Camera off",
    ),
    h(
      "button",
      { class: "on-dark", type: "button", disabled: media.photo.asked || status.path !== "up", title: "A sharp photo from the kiosk's camera, beside the call", onclick: () => media.askForPhoto(), "data-test": "sharp-photo-ask", key: "sharp-photo-ask" },
      icon("photo"),
      "Photo",
    ),
    h("button", { class: "danger big", type: "button", onclick: actions.hangUp, "data-test": "hang-up", key: "hang-up" }, icon("hangUp"), "Hang up"),
  ];
}

/** After the end, above the case. @param {import("./state.js").State} state @param {any} actions */
export function endedBar(state, actions) {
  const { call } = state;
  const length = call.answeredAt ? `, it lasted ${duration(call.endedAt - call.answeredAt)}` : "";
  const outcome = call.outcome && call.outcome !== "answered" ? `: ${outcomeLabel(call.outcome)}` : "";
  return h(
    "p",
    { class: "notice ended-bar", key: "ended", "data-test": "ended", "data-outcome": call.outcome ?? "" },
    icon("hangUp"),
    h("span", {}, `The call with ${call.site} is over${outcome}${length}.`),
    h("button", { class: "plain", type: "button", onclick: actions.putCallAway, "data-test": "ended-done" }, "Done"),
  );
}
