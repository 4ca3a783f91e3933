/**
 * What goes over HTTP rather than the socket. Every function raises `ApiError` with a sentence for the doctor.
 */

const SEND_TIMEOUT_MS = 120_000; // a voice reply from a thin connection

export class ApiError extends Error {
  /** @param {string} text @param {number} status 0 when the hub was not reached */
  constructor(text, status = 0) {
    super(text);
    this.status = status;
  }
}

/**
 * @typedef {{name: string, role: string, permissions: string[], must_change: boolean}} Me
 * @returns {Promise<Me|null>} null when nobody is signed in
 */
export async function whoAmI() {
  const answer = await ask("/api/me");
  if (answer.status === 401) return null;
  return (await accepted(answer)).json();
}

/** @param {string} name @param {string} password */
export const signIn = (name, password) => post("/api/login", { name, password });

export const signOut = () => post("/api/logout");

/** @param {string} old @param {string} wanted */
export const changePassword = (old, wanted) => post("/api/password", { old, new: wanted });

/**
 * Closed cases opened before `before` (Unix ms), newest first.
 * @param {number} before @returns {Promise<{cases: import("./state.js").CaseCard[], more: boolean}>}
 */
export const closedCases = (before) => get(`/api/cases?state=closed&before=${before}`);

/** @param {string} consult @param {import("./drafts.js").Draft} draft */
export async function sendAdvice(consult, draft) {
  const form = new FormData();
  form.append("advice", draft.id);
  form.append("text", draft.text.trim());
  if (draft.voice) {
    form.append("duration_ms", String(Math.round(draft.voiceMs)));
    form.append("voice", draft.voice, draft.voice.type.includes("ogg") ? "reply.ogg" : "reply.webm");
  }
  const signal = AbortSignal.timeout(SEND_TIMEOUT_MS);
  return (await accepted(await ask(`/api/cases/${consult}/advice`, { method: "POST", body: form, signal }))).json();
}

/** @param {string} digest */
export const fileUrl = (digest) => `/api/files/${digest}`;

/** @param {string} path */
export const get = async (path) => (await accepted(await ask(path))).json();

/** Answers null where the hub has nothing to say. @param {string} path @param {object} [body] */
export async function post(path, body) {
  const sent = body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await accepted(await ask(path, { method: "POST", ...sent }));
  return answer.status === 204 ? null : answer.json();
}

async function ask(path, options = {}) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new ApiError("The hub could not be reached. Check the connection and try again.");
  }
}

async function accepted(answer) {
  if (answer.ok) return answer;
  let text = `The hub answered ${answer.status}. Try again; if it stays so, tell the technician.`;
  try {
    text = (await answer.json()).error ?? text;
  } catch {
    // no JSON: the general sentence stands
  }
  throw new ApiError(text, answer.status);
}
