/**
 * The console's one WebSocket to the hub: JSON messages, and coming back by itself.
 *
 * Nothing is queued here. What must reach the hub after an outage is said again by `app.js` when it has heard
 * `hello`, because only it knows whether it is still true.
 */

const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 2000;
const PATIENT_AFTER_MS = 60_000; // the hub is gone for longer: ask less often
const PATIENT_RETRY_MS = 5000;
const PROBE_EVERY_MS = 10_000;
const PROBE_TIMEOUT_MS = 5000;
const SIGNED_OUT = [4401, 4403]; // nobody is signed in, or somebody for whom this is not

export class HubSocket {
  /**
   * @param {{onMessage: (message: any) => void, onState: (state: "connecting"|"up"|"down") => void,
   *   onSignedOut: () => void}} listeners
   */
  constructor(listeners) {
    this.listeners = listeners;
    this.socket = null;
    this.retryTimer = 0;
    this.attempts = 0;
    this.downSince = 0;
    this.wanted = false;
    // A browser does not notice by itself that a silent connection is dead, and a doctor who seems available and
    // is not is the worst state there is.
    setInterval(() => void this.#probe(), PROBE_EVERY_MS);
    addEventListener("offline", () => this.#drop());
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  open() {
    this.wanted = true;
    if (!this.socket) this.#connect();
  }

  close() {
    this.wanted = false;
    clearTimeout(this.retryTimer);
    this.#forget();
  }

  get up() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Returns whether it could be handed over. @param {{type: string}} message */
  send(message) {
    if (!this.up) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    clearTimeout(this.retryTimer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/console/ws`);
    this.socket = socket;
    this.listeners.onState(this.downSince ? "down" : "connecting");
    socket.onopen = () => {
      this.attempts = 0;
      this.downSince = 0;
      this.listeners.onState("up");
    };
    socket.onmessage = (event) => this.listeners.onMessage(JSON.parse(event.data));
    socket.onclose = (event) => {
      this.socket = null;
      if (SIGNED_OUT.includes(event.code)) this.#signedOut();
      else void this.#afterClose();
    };
  }

  async #afterClose() {
    if (!this.wanted) return;
    this.downSince ||= Date.now();
    this.listeners.onState("down");
    const longest = Date.now() - this.downSince > PATIENT_AFTER_MS ? PATIENT_RETRY_MS : LONGEST_RETRY_MS;
    const wait = Math.min(FIRST_RETRY_MS * 2 ** this.attempts, longest);
    this.attempts += 1;
    this.retryTimer = setTimeout(() => this.#connect(), wait * (0.75 + Math.random() / 4));
    // A refused upgrade tells the page no more than 1006; whether the session is over is asked by HTTP.
    if (this.attempts % 3 === 1 && (await sessionIsOver()) && this.wanted) this.#signedOut();
  }

  #signedOut() {
    this.close();
    this.listeners.onSignedOut();
  }

  #retryNow() {
    if (!this.wanted || this.socket) return;
    this.attempts = 0;
    this.#connect();
  }

  async #probe() {
    const { socket } = this;
    if (!this.up) return;
    try {
      await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    } catch {
      if (this.socket === socket) this.#drop();
    }
  }

  #drop() {
    if (!this.socket) return;
    this.#forget();
    void this.#afterClose();
  }

  #forget() {
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }
}

async function sessionIsOver() {
  try {
    const answer = await fetch("/api/me", { cache: "no-store", signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return answer.status === 401;
  } catch {
    return false;
  }
}
