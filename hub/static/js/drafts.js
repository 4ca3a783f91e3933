/**
 * Advice that is written and not sent yet, one draft a consult. Text survives a reload of the page; a recorded
 * voice lives in memory only, so the page asks before it is closed over one.
 *
 * A draft gets its id when it is first sent. Where the hub's answer was lost, the same id makes a second sending
 * the same advice, and the draft goes when the case shows that it has arrived; a changed draft is another one.
 *
 * @typedef {{id: string, text: string, voice: Blob|null, voiceUrl: string, voiceMs: number, sending: boolean, error: string}} Draft
 */

const KEY = "draft:";
const ID_KEY = "draft-id:";
const OWNER_KEY = "draft-owner";

export class Drafts {
  constructor() {
    /** @type {Map<string, Draft>} */
    this.kept = new Map();
    addEventListener("beforeunload", (event) => {
      if ([...this.kept.values()].some((draft) => draft.voice)) event.preventDefault();
    });
  }

  /** @param {string} consult @returns {Draft} */
  of(consult) {
    let draft = this.kept.get(consult);
    if (!draft) {
      const text = sessionStorage.getItem(KEY + consult) ?? "";
      const id = sessionStorage.getItem(ID_KEY + consult) ?? "";
      draft = { id, text, voice: null, voiceUrl: "", voiceMs: 0, sending: false, error: "" };
      this.kept.set(consult, draft);
    }
    return draft;
  }

  /** @param {string} consult @param {string} text */
  write(consult, text) {
    this.#changed(consult).text = text;
    if (text) sessionStorage.setItem(KEY + consult, text);
    else sessionStorage.removeItem(KEY + consult);
  }

  /** @param {string} consult @param {Blob} voice @param {number} ms */
  setVoice(consult, voice, ms) {
    this.dropVoice(consult);
    Object.assign(this.of(consult), { voice, voiceUrl: URL.createObjectURL(voice), voiceMs: ms });
  }

  /** @param {string} consult */
  dropVoice(consult) {
    const draft = this.#changed(consult);
    if (draft.voiceUrl) URL.revokeObjectURL(draft.voiceUrl);
    Object.assign(draft, { voice: null, voiceUrl: "", voiceMs: 0 });
  }

  /** Give it its id, before it is sent. @param {string} consult */
  name(consult) {
    const draft = this.of(consult);
    draft.id ||= Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem(ID_KEY + consult, draft.id);
  }

  /** @param {string} consult @param {{advice: string}[]} given what the hub has */
  forgetSent(consult, given) {
    const { id, sending } = this.of(consult);
    if (id && !sending && given.some(({ advice }) => advice === id)) this.clear(consult);
  }

  /** After it was sent. @param {string} consult */
  clear(consult) {
    this.dropVoice(consult);
    this.write(consult, "");
    this.kept.delete(consult);
  }

  #changed(consult) {
    const draft = this.of(consult);
    draft.id = "";
    sessionStorage.removeItem(ID_KEY + consult);
    return draft;
  }

  /** Another doctor at this browser must not find them. @param {string} doctor */
  belongTo(doctor) {
    const owner = sessionStorage.getItem(OWNER_KEY);
    if (owner !== null && owner !== doctor) this.forgetAll();
    sessionStorage.setItem(OWNER_KEY, doctor);
  }

  forgetAll() {
    for (const consult of [...this.kept.keys()]) this.clear(consult);
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(KEY)) sessionStorage.removeItem(key);
  }
}
