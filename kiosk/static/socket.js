// The page's WebSocket: comes back by itself, quickly, since the agent may restart at any instant.

const RETRY_MS = [200, 400, 800, 1500];

export class Socket {
  #socket = null;
  #failures = 0;
  #handlers;

  /** `handlers`: opened(), closed(), text(string), picture(ArrayBuffer). */
  constructor(path, handlers) {
    this.path = path;
    this.#handlers = handlers;
    this.#connect();
  }

  /** False when there is nobody to hear it: what a person pressed then is not sent later, when it no longer fits. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    const socket = new WebSocket(`ws://${location.host}${this.path}`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#failures = 0;
      this.#handlers.opened?.();
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.#handlers.text(data);
      else this.#handlers.picture?.(data);
    };
    socket.onclose = () => {
      this.#handlers.closed?.();
      const wait = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
      setTimeout(() => this.#connect(), wait);
    };
  }
}
