/** Codes of the wire in the words that a doctor reads, and times as people say them. Pure. */

const COMPLAINTS = {
  fever: "Fever",
  cough: "Cough",
  breathing: "Breathing trouble",
  pain: "Pain",
  stomach: "Stomach",
  diarrhoea: "Diarrhoea",
  injury: "Injury",
  skin: "Skin",
  pregnancy: "Pregnancy",
  child: "Child",
  eyes: "Eyes",
  other: "Other",
};
const MISSING = { camera: "no camera", microphone: "no microphone", speaker: "no speaker", button: "no button", lamp: "no lamp" };
const WARNINGS = {
  button_stuck: "the button seems stuck",
  disk_low: "the kiosk's disk is nearly full",
  clock_wrong: "the kiosk's clock is wrong",
  messages_set_aside: "something that the hub does not take waits at the kiosk",
  messages_refused: "somebody else speaks to the kiosk in the hub's name",
  ...MISSING,
};
const OUTCOMES = {
  answered: "answered",
  cancelled: "taken back by the patient",
  declined: "declined",
  unanswered: "nobody answered",
  link_lost: "the line was lost",
  doctor_gone: "the doctor's browser was gone",
};
const URGENCIES = { routine: "Routine", soon: "Soon", urgent: "Urgent", emergency: "Emergency" };
const STATES = {
  receiving: "Arriving…",
  open: "To answer",
  answered: "Answered",
  heard: "Advice heard",
  closed: "Closed",
};

const ROLES = { doctor: "Doctor", technician: "Technician", administrator: "Administrator" };
const AUDIT = {
  signed_in: "signed in",
  signed_out: "signed out",
  sign_in_failed: "failed to sign in",
  inbox_opened: "opened waiting room and inbox",
  case_viewed: "read a case",
  file_viewed: "looked at a file",
  closed_cases_listed: "listed closed cases",
  opened: "opened a consult",
  note: "wrote a note",
  case_saved: "sent a case",
  seen: "was the first to read a case",
  closed: "closed a case",
  reopened: "opened a case again",
  original_asked: "asked for a photo's original",
  advice: "gave advice",
  advice_heard: "heard advice",
  call_requested: "called",
  emergency: "called in an emergency",
  everyone_rung: "rang every doctor",
  claimed: "took a call",
  released: "gave a call back",
  answered: "answered a call",
  doctor_rings: "rang a kiosk",
  account_added: "added an account",
  account_disabled: "disabled an account",
  account_enabled: "let an account in again",
  password_set: "set a password",
  role_set: "changed a role",
  audit_viewed: "read the audit log",
  audit_exported: "exported the audit log",
  invited: "made a code for a kiosk",
  invitation_withdrawn: "withdrew a code",
  joined: "joined",
  renewed: "renewed its certificate",
  approval_asked: "asked for an approval",
  approved: "approved a kiosk",
  refused: "refused a kiosk",
  ca_rotated: "began a change of CA",
  ca_rotation_finished: "ended a change of CA",
  revoked: "revoked a kiosk",
};

const own = (map, code) => (Object.hasOwn(map, code) ? map[code] : code);

// A code that this release does not know is shown as it came.
export const complaintLabel = (code) => own(COMPLAINTS, code);
export const warningLabel = (code) => own(WARNINGS, code);
export const outcomeLabel = (code) => own(OUTCOMES, code);
export const missingLabel = (code) => own(MISSING, code);
export const roleLabel = (code) => own(ROLES, code);
export const urgencyLabel = (code) => own(URGENCIES, code);
export const stateLabel = (code) => own(STATES, code);

/** @param {string} code */
export function auditLabel(code) {
  if (code.startsWith("ended_")) return `call ended: ${outcomeLabel(code.slice("ended_".length))}`;
  return own(AUDIT, code);
}

export function languageLabel(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

/** "0:07", "12:30", "1:02:05" @param {number} ms */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** "14:30" today, "3 Mar 14:30" before. @param {number} at @param {number} now */
export function clockTime(at, now) {
  const date = new Date(at);
  const time = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === new Date(now).toDateString() ? time : `${day(at, now)} ${time}`;
}

/** "3 Mar", and the year where it is another. @param {number} at @param {number} now */
export function day(at, now) {
  const date = new Date(at);
  const otherYear = date.getFullYear() !== new Date(now).getFullYear();
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: otherYear ? "numeric" : undefined });
}

/** "just now", "4 min ago", "3 h ago", then the date. @param {number} at @param {number} now */
export function ago(at, now) {
  const minutes = Math.floor((now - at) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 12 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return clockTime(at, now);
}

/** @param {number} bytes */
export function fileSize(bytes) {
  return bytes < 1_000_000 ? `${Math.max(1, Math.round(bytes / 1000))} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** @param {number} number @param {string} one @param {string} [many] */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
