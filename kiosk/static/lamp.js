// A drawn lamp that follows the same patterns as the real one (hardware/api.py, served at /light-patterns).

const still = matchMedia("(prefers-reduced-motion: reduce)");

export async function loadPatterns() {
  return (await fetch("/light-patterns")).json();
}

export class Lamp {
  #patterns;
  #light = "";
  #timer = 0;
  #show;

  /** `show(red, green, blue, seconds)` is called with 0 to 1 at every step of the pattern. */
  constructor(patterns, show) {
    this.#patterns = patterns;
    this.#show = show;
  }

  set light(name) {
    if (name === this.#light || !(name in this.#patterns)) return;
    this.#light = name;
    clearTimeout(this.#timer);
    this.#step(0);
  }

  #step(index) {
    const steps = this.#patterns[this.#light];
    const [red, green, blue, seconds] = steps[index];
    this.#show(red, green, blue, seconds);
    if (steps.length > 1 && !still.matches) {
      this.#timer = setTimeout(() => this.#step((index + 1) % steps.length), seconds * 1000);
    }
  }
}

/** A CSS colour for a lamp's step; a dark lamp still shows its glass. */
export function lampColour(red, green, blue) {
  const brightness = Math.max(red, green, blue);
  if (brightness === 0) return "rgb(74 84 88)";
  const glow = 0.45 + 0.55 * brightness; // an eye sees a dim lamp brighter than a screen shows it
  const part = (value) => Math.round(255 * glow * (value / brightness));
  return `rgb(${part(red)} ${part(green)} ${part(blue)})`;
}
