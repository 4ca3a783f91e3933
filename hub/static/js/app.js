/**
 * The doctor's console: wires hub, call, ring and views. State in, descriptions of elements out (`dom.js`).
 *
 * Hooks for tests, kept stable:
 * - `document.body.dataset.callState`: idle | calling (this doctor rings a kiosk) | claimed (connecting or held)
 *   | live | lost | turns | ended (until Done is pressed or a new call begins)
 * - `document.body.dataset.ringing`: none | call | emergency; `document.body.dataset.sound`: on | blocked
 * - `#far-video` carries picture and sound of the kiosk, `#own-video` the own picture
 * - `data-test` names: sign-in-name, sign-in-password, sign-in-submit, sign-in-error, sign-out; available (a switch,
 *   aria-checked), away-until; link-state (data-state up|down|connecting), sound-on, notify-on, notify-later, notice;
 *   ring-card (data-call, data-emergency) with claim in it; call (data-call), call-words, talk, release, decline,
 *   hang-up, turn-speak, turn-state (data-hearing, data-waiting, data-sent), mute, camera, device-problem, devices-retry, elapsed; ended (data-outcome), ended-done;
 *   tab-open, tab-closed, older; case-row (data-consult, data-state, data-complete); case (data-consult,
 *   data-state), case-text, ring-kiosk, close-case, leave-case, other-patient; photo and voice (data-digest,
 *   data-complete; a photo has data-shows, too, of what it is shown in), photo-large, ask-original, original-asked, damaged; call-line (data-outcome); advice (data-advice, data-reached sent|delivered|heard);
 *   password-open, password-dialog, password-old, password-new, password-again, password-submit, password-error;
 *   advice-text, advice-send, advice-error, record-reply, record-stop, reply-preview, reply-discard
 */

import { ApiError, changePassword, closedCases, sendAdvice, signIn, signOut, whoAmI } from "./api.js";
import { CallMedia } from "./call.js";
import { callView, endedBar, words } from "./callview.js";
import { caseView } from "./case.js";
import { h, render } from "./dom.js";
import { Drafts } from "./drafts.js";
import { inbox } from "./inbox.js";
import { Office } from "./office.js";
import { passwordDialog, passwordPage } from "./password.js";
import { photoDialog } from "./photos.js";
import { Recorder } from "./recorder.js";
import { Ringer } from "./ring.js";
import { waitingRoom } from "./room.js";
import { signInPage } from "./signin.js";
import { HubSocket } from "./socket.js";
import { callState, inCall, initialState, notice, receive, ringingCards, ringKind } from "./state.js";
import { notices, topBar } from "./topbar.js";
import { Turns } from "./turns.js";

const START_RETRY_MS = 2000;

let state = initialState();
/** Calls hung up here that the hub may not have heard of: an outage must not bring them back. */
const hungUp = new Set();
let talkHeard = true; // whether the hub has been told of the Answer, since it last said hello
let shownCall = ""; // the call whose case was opened beside it
let drawing = false;
let said = "";

const drafts = new Drafts();
const ringer = new Ringer(() => change({}));
const socket = new HubSocket({ onMessage, onState: onLink, onSignedOut });
const media = new CallMedia({ send: (message) => socket.send(message), onChange: () => change({}) });
const turns = new Turns({
  send: (message) => socket.send(message),
  onChange: () => change({}),
  microphone: () => media.microphone,
});
const office = new Office({
  onChange: () => change({}),
  onSignedOut,
  onPassword: () => actions.openPassword(),
  signOut: () => void actions.signOut(),
});
const recorder = new Recorder({
  onChange: () => change({}),
  onDone: (consult, voice, ms) => {
    drafts.setVoice(consult, voice, ms);
    change({});
  },
  onProblem: (text) => tell(text),
});

// --- the hub speaks

function onMessage(message) {
  if (message.type === "offer") return void takeOffer(message);
  if (message.type === "kiosk_media") return media.takeKioskState(message);
  if (message.type === "turn") return turns.takeSound(message);
  if (message.type === "turn_mark") return turns.takeMark(message);
  const overHere = message.type === "call" && hungUp.has(message.call);
  if (overHere && message.phase !== "ended") return void socket.send({ type: "hang_up", call: message.call });
  if (overHere) hungUp.delete(message.call);
  state = receive(state, message, Date.now());
  if (message.type === "hello") onHello(message);
  if (message.type === "call") onCall(message);
  if (message.type === "case") drafts.forgetSent(message.case.card.consult, message.case.advice);
  change({});
}

function onHello(message) {
  drafts.belongTo(message.name);
  talkHeard = false;
  if (hungUp.has(message.resume)) socket.send({ type: "hang_up", call: message.resume });
  if (state.openConsult) socket.send({ type: "open_case", consult: state.openConsult });
  media.showAgain();
  turns.again();
}

function onCall(message) {
  if (state.call?.call !== message.call) return;
  media.kioskOnline = message.kiosk_online;
  if (message.phase === "claimed" && state.call.talking && !talkHeard) sendTalk();
}

function takeOffer(offer) {
  // Whoever rang the kiosk has said that he wants to talk: the patient's press is the answer.
  if (state.call?.call === offer.call && state.call.placed) talkNow();
  void media.takeOffer(offer);
}

function onLink(link) {
  const changed = link !== state.link;
  change({ link, linkSince: changed && link === "down" ? Date.now() : state.linkSince });
}

function onSignedOut() {
  office.close();
  change({ screen: "sign-in", signIn: { busy: false, error: "You have been signed out. Please sign in again." } });
}

// --- the doctor acts

const actions = {
  async signIn(name, password) {
    change({ signIn: { busy: true, error: "" } });
    try {
      await signIn(name, password);
      change({ signIn: { busy: false, error: "" } });
      await start();
    } catch (error) {
      change({ signIn: { busy: false, error: sentence(error) } });
    }
  },

  async signOut() {
    try {
      await signOut();
    } catch (error) {
      return tell(sentence(error));
    }
    socket.close();
    office.close();
    drafts.forgetAll();
    state = { ...initialState(), screen: "sign-in" };
    change({});
  },

  openPassword: () => change({ password: { open: true, busy: false, error: "" } }),

  closePassword: () => change({ password: { open: false, busy: false, error: "" } }),

  async changePassword(old, wanted, again) {
    if (wanted !== again) return change({ password: { open: true, busy: false, error: "The two new ones are not the same." } });
    change({ password: { open: true, busy: true, error: "" } });
    try {
      await changePassword(old, wanted);
    } catch (error) {
      return change({ password: { open: true, busy: false, error: sentence(error) } });
    }
    actions.closePassword();
    if (state.screen === "password") await start();
  },

  setAvailable(available, until) {
    if (socket.send({ type: "available", available, until })) change({ available, until });
  },

  claim(call) {
    if (socket.send({ type: "claim", call })) change({ claiming: call });
  },

  talk: talkNow,

  release: () => letGo("release"),

  decline: () => letGo("decline"),

  hangUp() {
    const { call } = state;
    hungUp.add(call.call);
    socket.send({ type: "hang_up", call: call.call });
    change({ call: { ...call, phase: "ended", endedAt: hubNow() } });
  },

  putCallAway: () => change({ call: null }),

  ringKiosk(consult) {
    if (socket.send({ type: "ring_kiosk", consult })) change({ ringing: consult });
  },

  openCase,

  leaveCase() {
    socket.send({ type: "leave_case", consult: state.openConsult });
    change({ openConsult: "", case: null, enlarged: "" });
  },

  closeCase: (consult) => socket.send({ type: "close_case", consult }),

  askOriginal: (consult, digest) => socket.send({ type: "ask_original", consult, digest }),

  enlarge: (digest) => change({ enlarged: digest }),

  async showTab(tab) {
    change({ tab, closed: null, closedEnd: false });
    if (tab === "closed") await fetchClosed([], hubNow());
  },

  olderCases: () => fetchClosed(state.closed, state.closed.at(-1).opened_at),

  writeAdvice(consult, text) {
    drafts.write(consult, text);
    change({});
  },

  async sendAdvice(consult) {
    const draft = drafts.of(consult);
    if (draft.sending || (!draft.text.trim() && !draft.voice)) return;
    Object.assign(draft, { sending: true, error: "" });
    drafts.name(consult);
    change({});
    try {
      await sendAdvice(consult, draft);
      drafts.clear(consult);
    } catch (error) {
      draft.error = `Not sent, and kept here. ${sentence(error)}`;
    }
    draft.sending = false;
    if (state.case?.card.consult === consult) drafts.forgetSent(consult, state.case.advice);
    change({});
  },

  recordVoice: (consult) => recorder.start(consult, state.audioProcessing),

  discardVoice(consult) {
    drafts.dropVoice(consult);
    change({});
  },

  notifyLater: () => change({ notifyLater: true }),

  dismiss: (id) => change({ notices: state.notices.filter((one) => one.id !== id) }),
};

function talkNow() {
  if (state.call.talking) return;
  sendTalk();
  change({ call: { ...state.call, talking: true } });
}

function sendTalk() {
  talkHeard = state.call.placed || socket.send({ type: "talk", call: state.call.call });
}

function letGo(how) {
  const { call, consult } = state.call;
  if (!socket.send({ type: how, call })) return;
  change({ call: null });
  if (state.openConsult === consult) actions.leaveCase();
}

function openCase(consult) {
  if (consult === state.openConsult) return;
  if (state.openConsult) socket.send({ type: "leave_case", consult: state.openConsult });
  socket.send({ type: "open_case", consult });
  change({ openConsult: consult, case: null, enlarged: "" });
}

async function fetchClosed(before, time) {
  try {
    const older = await closedCases(time);
    if (state.tab === "closed") change({ closed: [...before, ...older.cases], closedEnd: !older.more });
  } catch (error) {
    tell(sentence(error));
    change({ tab: "open" });
  }
}

const hubNow = () => Date.now() + state.skew;
const tell = (text) => {
  state = notice(state, text);
  change({});
};

function sentence(error) {
  if (error instanceof ApiError) return error.message;
  console.error(error);
  return "Something went wrong in this page. Reload it; what you wrote is kept.";
}

// --- one change, one drawing

/** @param {Partial<import("./state.js").State>} part */
function change(part) {
  state = { ...state, ...part };
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    settle();
    drawing = false;
    draw();
  });
}

/** Makes the media follow the state, wherever the change came from. */
function settle() {
  const { call } = state;
  const mine = inCall(state) ? call.call : "";
  const active = mine || state.claiming;
  if (media.call && media.call !== active) media.end();
  if (active && !media.call) {
    const rejoin = mine !== "" && state.resume === mine && call.phase !== "calling_kiosk";
    media.begin(active, { audioProcessing: state.audioProcessing, rejoin });
  }
  if (mine && mine !== shownCall) openCase(call.consult);
  shownCall = mine;
  if (mine && call.talking) media.talk();
  turns.belongTo(mine);
  if (!media.inTurns) turns.stop();
}

function draw() {
  const root = document.getElementById("app");
  const status = media.status();
  const phase = callState(state, status);
  document.body.dataset.callState = phase;
  document.body.dataset.sound = ringer.soundAllowed ? "on" : "blocked";
  const first = state.screen === "work" ? ringingCards(state)[0] : undefined;
  ringer.ring(first ? ringKind(state) : "none", first?.site ?? "", inCall(state));
  announce(phase, status, first);
  const password = passwordDialog(state, actions);
  if (state.screen === "work") render(root, workplace(), photoDialog(state, actions), password);
  else if (state.screen === "office") render(root, office.view(Date.now()), password);
  else if (state.screen === "password") render(root, passwordPage(state, actions));
  else if (state.screen === "sign-in") render(root, signInPage(state, actions));
  else render(root, h("main", { class: "sign-in", key: "starting" }, h("p", { class: "quiet" }, "Looking for the hub…")));
}

function workplace() {
  const now = hubNow();
  const keep = { drafts, recorder, media };
  const calling = inCall(state);
  const nothing = h(
    "div",
    { class: "nothing", key: "nothing" },
    h("h2", {}, "Nothing open"),
    h("p", {}, "A call rings on the left. Choose a case from the inbox to read and answer it."),
  );
  return h(
    "div",
    { class: "work", key: "work" },
    topBar(state, actions, Date.now()),
    notices(state, actions, ringer),
    h(
      "div",
      { class: "columns", key: "columns" },
      h("aside", { class: "side" }, waitingRoom(state, actions, now), inbox(state, actions, now)),
      h(
        "main",
        { class: calling ? "middle in-call" : "middle" },
        calling && callView(state, actions, media, turns, now, Date.now()),
        state.call?.phase === "ended" && endedBar(state, actions),
        state.openConsult ? caseView(state, actions, now, keep) : !calling && nothing,
      ),
    ),
  );
}

/** Changes that a doctor who does not see the page must hear of. */
function announce(phase, status, first) {
  const urgent = first?.emergency ? `Emergency call from ${first.site}` : phase === "lost" ? "Line lost, trying again" : "";
  say("announce-now", urgent);
  const call = state.call && phase !== "idle" && phase !== "lost" ? callWords(phase, status) : "";
  const text = call || (first ? `Call from ${first.site}` : state.link === "down" ? "The hub is not reached" : "");
  if (text !== said) say("announce", (said = text));
}

function callWords(phase, status) {
  if (phase === "ended") return "The call is over";
  return words(state.call, phase, status, Date.now()) || "You are live";
}

function say(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

/** @param {import("./api.js").Me} me */
function screenFor(me) {
  if (me.must_change) return "password";
  return me.permissions.includes("see_patients") ? "work" : "office";
}

async function start() {
  try {
    const me = await whoAmI();
    if (!me) return change({ screen: "sign-in" });
    change({ me: me.name, screen: screenFor(me) });
    if (state.screen === "office") office.open(me);
    if (state.screen === "work") socket.open();
  } catch {
    setTimeout(() => void start(), START_RETRY_MS); // the hub is not up yet: the page says that it looks for it
  }
}

// Space is held to speak, as the button is, wherever no other control or text has the focus.
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !media.inTurns || event.target.closest("input, textarea, select, button:not([data-test=turn-speak])")) return;
  event.preventDefault();
  if (!event.repeat) void turns.start();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") turns.stop();
});
addEventListener("blur", () => turns.stop());

setInterval(() => change({}), 1000); // waiting times and the call's clock
change({});
await start();
