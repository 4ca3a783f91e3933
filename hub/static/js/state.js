/**
 * What the page knows, and how each message of the hub (`hub/console.py`) changes it. Pure: `now` is handed in.
 *
 * @typedef {{call: string, consult: string, kiosk: string, site: string, emergency: boolean, requested_at: number,
 *   rings_me: boolean, claimed_by: string, language: string, warnings: string[]}} RingCard
 * @typedef {{consult: string, kiosk: string, site: string, opened_at: number, urgency: string, patient: string,
 *   complaints: string[], text: string, state: string, photos: number, voice_ms: number, complete: boolean,
 *   seen: boolean, last_outcome: string|null}} CaseCard
 * @typedef {{digest: string, role: string, mime: string, size: number, received: number, complete: boolean,
 *   duration_ms: number, captured_at: number, damage: string, renditions: Rendition[], original_bytes: number,
 *   original_asked_at: number, original_gone: boolean}} FileCard
 * @typedef {{digest: string, name: string, size: number, received: number, complete: boolean, damage: string}} Rendition
 * @typedef {{advice: string, given_by: string, given_at: number, text: string, reply: string, delivered_at: number,
 *   heard_at: number}} AdviceCard
 * @typedef {{call: string, requested_at: number, by_doctor: boolean, doctor: string, emergency: boolean,
 *   answered_at: number, ended_at: number, outcome: string|null}} CallCard
 * @typedef {{card: CaseCard, kiosk_online: boolean, files: FileCard[], calls: CallCard[], advice: AdviceCard[],
 *   entered_by: string}} Case
 * @typedef {{name: string, available: boolean, in_call: boolean}} DoctorCard
 *
 * @typedef {{call: string, consult: string, kiosk: string, site: string, language: string, warnings: string[],
 *   emergency: boolean, requestedAt: number, phase: "calling_kiosk"|"claimed"|"answered"|"ended",
 *   kioskOnline: boolean, outcome: string|null, answeredAt: number, endedAt: number, talking: boolean,
 *   placed: boolean}} Call
 *   the call this doctor is in; `talking` once Answer was pressed here, whether or not the hub knows yet; `placed`
 *   when the doctor rang the kiosk
 *
 * @typedef {{id: number, text: string}} Notice
 *
 * @typedef {{screen: "starting"|"sign-in"|"password"|"work"|"office", signIn: {busy: boolean, error: string}, me: string,
 *   password: {open: boolean, busy: boolean, error: string},
 *   link: "connecting"|"up"|"down", linkSince: number, skew: number, audioProcessing: boolean,
 *   available: boolean, until: string, doctors: DoctorCard[], queue: RingCard[],
 *   cases: CaseCard[], closed: CaseCard[]|null, closedEnd: boolean, tab: "open"|"closed",
 *   openConsult: string, case: Case|null, enlarged: string,
 *   call: Call|null, claiming: string, ringing: string, resume: string, notices: Notice[],
 *   notifyLater: boolean}} State
 *   `claiming` is a call id and `ringing` a consult id, both until the hub has answered
 */

/** @returns {State} */
export function initialState() {
  return {
    screen: "starting",
    signIn: { busy: false, error: "" },
    me: "",
    password: { open: false, busy: false, error: "" },
    link: "connecting",
    linkSince: 0,
    skew: 0,
    audioProcessing: true,
    available: false,
    until: "",
    doctors: [],
    queue: [],
    cases: [],
    closed: null,
    closedEnd: false,
    tab: "open",
    openConsult: "",
    case: null,
    enlarged: "",
    call: null,
    claiming: "",
    ringing: "",
    resume: "",
    notices: [],
    notifyLater: false,
  };
}

/** @param {State} state @param {any} message from the hub @param {number} now Unix ms of this machine @returns {State} */
export function receive(state, message, now) {
  switch (message.type) {
    case "hello":
      return hello(state, message, now);
    case "room": {
      const mine = message.doctors.find((doctor) => doctor.name === state.me);
      return { ...state, queue: message.queue, doctors: message.doctors, available: mine?.available ?? state.available };
    }
    case "inbox":
      return { ...state, cases: message.cases };
    case "case":
      return message.case.card.consult === state.openConsult ? { ...state, case: message.case } : state;
    case "call":
      return callUpdate(state, message, now);
    case "refused":
      return refused(state, message, now);
    default:
      return state; // of a newer hub
  }
}

function hello(state, message, now) {
  const next = {
    ...state,
    screen: "work",
    me: message.name,
    available: message.available,
    until: message.until,
    skew: message.now - now,
    audioProcessing: message.audio_processing,
    resume: message.resume,
    claiming: "",
    ringing: "",
  };
  const { call } = state;
  const overMeanwhile = call && call.phase !== "ended" && call.call !== message.resume;
  return overMeanwhile ? { ...next, call: { ...call, phase: "ended", endedAt: now + next.skew } } : next;
}

function callUpdate(state, message, now) {
  const same = state.call?.call === message.call;
  if (!same && message.phase === "ended") return state; // one that was let go of here
  const call = {
    ...(same ? state.call : newCall(state, message)),
    phase: message.phase,
    kioskOnline: message.kiosk_online,
    outcome: message.outcome,
    answeredAt: message.answered_at || (same ? state.call.answeredAt : 0),
  };
  if (message.phase === "ended") call.endedAt ||= now + state.skew;
  if (message.phase === "answered") call.talking = true;
  const claiming = state.claiming === message.call ? "" : state.claiming;
  const ringing = state.ringing === message.consult ? "" : state.ringing;
  return { ...state, call, claiming, ringing };
}

/** @returns {Call} with what the waiting room or the inbox tells of the kiosk */
function newCall(state, message) {
  const ring = state.queue.find((card) => card.call === message.call);
  const kept = state.cases.find((card) => card.consult === message.consult) ?? state.case?.card;
  return {
    call: message.call,
    consult: message.consult,
    kiosk: message.kiosk,
    site: ring?.site ?? (kept?.consult === message.consult ? kept.site : message.kiosk),
    language: ring?.language ?? "",
    warnings: ring?.warnings ?? [],
    emergency: ring?.emergency ?? false,
    requestedAt: ring?.requested_at ?? 0,
    phase: message.phase,
    kioskOnline: message.kiosk_online,
    outcome: null,
    answeredAt: 0,
    endedAt: 0,
    talking: false,
    placed: message.phase === "calling_kiosk",
  };
}

function refused(state, message, now) {
  const next = notice(state, message.text);
  if (message.request === "claim") next.claiming = "";
  if (message.request === "ring_kiosk") next.ringing = "";
  const lost = ["talk", "claim"].includes(message.request) && ["gone", "not_yours", "taken"].includes(message.code);
  if (lost && message.call && state.call?.call === message.call && state.call.phase !== "ended") {
    next.call = { ...state.call, phase: "ended", endedAt: now + state.skew };
  }
  return next;
}

let noticeId = 0;

/** @param {State} state @param {string} text @returns {State} */
export function notice(state, text) {
  noticeId += 1;
  return { ...state, notices: [...state.notices.slice(-2), { id: noticeId, text }] };
}

/** Whether this doctor is in a call that is not over. @param {State} state */
export const inCall = (state) => state.call !== null && state.call.phase !== "ended";

/** The cards that call for this doctor. @param {State} state */
export const ringingCards = (state) =>
  state.queue.filter((card) => card.rings_me && !card.claimed_by && card.call !== state.call?.call);

/** @param {State} state @returns {"none"|"call"|"emergency"} */
export function ringKind(state) {
  const cards = ringingCards(state);
  return cards.some((card) => card.emergency) ? "emergency" : cards.length ? "call" : "none";
}

/**
 * @param {State} state @param {import("./call.js").MediaStatus} media
 * @returns {"idle"|"calling"|"claimed"|"live"|"lost"|"turns"|"ended"}
 */
export function callState(state, media) {
  const { call } = state;
  if (!call) return "idle";
  if (call.phase === "ended") return "ended";
  if (media.inTurns && call.talking) return "turns";
  if (media.path === "lost" && call.talking) return "lost";
  if (media.path === "up" && call.talking) return "live";
  return call.placed ? "calling" : "claimed";
}

/** Emergencies first, then urgent, then the oldest. @param {CaseCard[]} cases */
export function toAnswer(cases) {
  const order = ["emergency", "urgent", "soon", "routine"];
  return cases
    .filter((card) => card.state === "receiving" || card.state === "open")
    .sort((a, b) => order.indexOf(a.urgency) - order.indexOf(b.urgency) || a.opened_at - b.opened_at);
}

/** The newest first. @param {CaseCard[]} cases */
export const alreadyAnswered = (cases) =>
  cases.filter((card) => card.state === "answered" || card.state === "heard").sort((a, b) => b.opened_at - a.opened_at);
