// The big button, on the screen or as a key: `press` at once when it goes down, `emergency` when it is held for two
// seconds. While a call goes in turns it is held to speak: then `release` when it comes up, and no emergency. A finger stays down across changes of the screen (the press itself changes it), so the hold is followed on
// the document and drawn as a ring above everything.

const HOLD_MS = 2000;
const RING_AFTER_MS = 300; // an ordinary press shows no ring
const isForSpeaking = () => document.body.dataset.screen === "turns";
const KEYS = new Set(["Enter", " "]);

export class BigButton {
  #holder = null; // the pointer's id, or the key that is down
  #timers = [];
  #ring;
  #send;

  constructor(ring, send) {
    this.#ring = ring;
    this.#send = send;
    document.addEventListener("pointerdown", (event) => this.#pointerDown(event));
    for (const type of ["pointerup", "pointercancel"]) {
      document.addEventListener(type, (event) => this.#up(event.pointerId));
    }
    document.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("keyup", (event) => this.#up(event.key));
    window.addEventListener("blur", () => this.#up(this.#holder));
    document.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  #pointerDown(event) {
    if (event.button !== 0 || !event.target.closest("[data-hold]")) return;
    const box = event.target.closest("[data-hold]").getBoundingClientRect();
    this.#down(event.pointerId, box.x + box.width / 2, box.y + box.height / 2);
  }

  #keyDown(event) {
    if (!KEYS.has(event.key) || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.closest("input, textarea, button:focus-visible:not([data-hold])")) return;
    if (document.body.dataset.keypad !== undefined) return;
    event.preventDefault();
    const box = document.querySelector("[data-hold]")?.getBoundingClientRect();
    if (box) this.#down(event.key, box.x + box.width / 2, box.y + box.height / 2);
    else this.#down(event.key, innerWidth / 2, innerHeight / 2);
  }

  #down(holder, x, y) {
    if (this.#holder !== null) return;
    this.#holder = holder;
    document.body.dataset.held = "";
    this.#send({ do: "press" });
    this.#ring.style.setProperty("--x", `${x}px`);
    this.#ring.style.setProperty("--y", `${y}px`);
    this.#timers = [
      setTimeout(() => isForSpeaking() || this.#ring.classList.add("filling"), RING_AFTER_MS),
      setTimeout(() => {
        if (isForSpeaking()) return;
        this.#send({ do: "emergency" });
        this.#ring.classList.remove("filling");
      }, HOLD_MS),
    ];
  }

  #up(holder) {
    if (holder === null || holder !== this.#holder) return;
    this.#holder = null;
    delete document.body.dataset.held;
    this.#timers.forEach(clearTimeout);
    this.#ring.classList.remove("filling");
    if (isForSpeaking()) this.#send({ do: "release" });
  }
}
