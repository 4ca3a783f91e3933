// The panel of a simulated board. Hooks for tests: document.body.dataset.light and .pressed are what the board last
// said; dataset.connected is there while it listens; data-test="button", "lamp" and "held".

import { Lamp, lampColour, loadPatterns } from "./lamp.js";
import { Socket } from "./socket.js";

const KEYS = new Set(["Enter", " "]);
const RAMP_FROM_S = 0.8; // a lamp that breathes fades; one that blinks does not

const button = document.getElementById("button");
const seconds = document.getElementById("seconds");
const { body } = document;
let downAt = 0;
let clock = 0;

async function start() {
  const patterns = await loadPatterns();
  for (const item of document.querySelectorAll("li[data-light]")) {
    const brightest = patterns[item.dataset.light].toSorted((one, two) => sum(two) - sum(one))[0];
    item.style.setProperty("--own", lampColour(...brightest));
  }
  const lamp = new Lamp(patterns, (red, green, blue, lasts) => {
    body.style.setProperty("--lamp", lampColour(red, green, blue));
    body.style.setProperty("--shine", String(Math.max(red, green, blue)));
    body.style.setProperty("--ramp", lasts >= RAMP_FROM_S && lasts < 60 ? `${lasts * 0.8}s` : "0s");
  });
  const socket = new Socket("/board/ws", {
    opened: () => {
      body.dataset.connected = "";
      document.querySelector(".gone").hidden = true;
    },
    closed: () => {
      delete body.dataset.connected;
      document.querySelector(".gone").hidden = false;
      lamp.light = "off";
    },
    text: (text) => {
      const { light, pressed } = JSON.parse(text);
      Object.assign(body.dataset, { light, pressed: String(pressed) });
      button.setAttribute("aria-pressed", String(pressed));
      lamp.light = light;
      for (const item of document.querySelectorAll("li[data-light]")) {
        item.classList.toggle("now", item.dataset.light === light);
      }
    },
  });
  listen((what) => socket.send({ do: what }));
}

const sum = ([red, green, blue]) => red + green + blue;

function listen(send) {
  let holder = null;
  const down = (by) => {
    if (holder !== null) return;
    holder = by;
    downAt = performance.now();
    document.querySelector(".held").classList.add("shown");
    clock = setInterval(() => {
      seconds.textContent = ((performance.now() - downAt) / 1000).toFixed(1);
    }, 100);
    send("down");
  };
  const up = (by) => {
    if (holder === null || by !== holder) return;
    holder = null;
    clearInterval(clock);
    document.querySelector(".held").classList.remove("shown");
    send("up");
  };
  button.addEventListener("pointerdown", (event) => {
    if (event.button === 0) down(event.pointerId);
  });
  for (const type of ["pointerup", "pointercancel"]) document.addEventListener(type, (event) => up(event.pointerId));
  document.addEventListener("keydown", (event) => {
    if (!KEYS.has(event.key) || event.repeat) return;
    event.preventDefault();
    down(event.key);
  });
  document.addEventListener("keyup", (event) => up(event.key));
  window.addEventListener("blur", () => up(holder));
  document.addEventListener("contextmenu", (event) => event.preventDefault());
}

start().catch(() => setTimeout(() => location.reload(), 1000));
