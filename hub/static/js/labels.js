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
const WARNINGS = {
  button_stuck: "the button seems stuck",
  disk_low: "the kiosk's disk is nearly full",
  clock_wrong: "the kiosk's clock is wrong",
  camera: "no camera",
  microphone: "no microphone",
  speaker: "no speaker",
  button: "no button",
  lamp: "no lamp",
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

const own = (map, code) => (Object.hasOwn(map, code) ? map[code] : code);

// A code that this release does not know is shown as it came.
export const complaintLabel = (code) => own(COMPLAINTS, code);
export const warningLabel = (code) => own(WARNINGS, code);
export const outcomeLabel = (code) => own(OUTCOMES, code);
export const urgencyLabel = (code) => own(URGENCIES, code);
export const stateLabel = (code) => own(STATES, code);

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
  if (date.toDateString() === new Date(now).toDateString()) return time;
  const otherYear = date.getFullYear() !== new Date(now).getFullYear();
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: otherYear ? "numeric" : undefined });
  return `${day} ${time}`;
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
