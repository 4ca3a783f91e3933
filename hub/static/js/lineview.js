/** The clinic's line in a call: what goes over it and why not more, in words, and how it was in the last minutes. Pure. */

import { h } from "./dom.js";

/** @typedef {import("./leg.js").Line} Line */

const PICTURES = { none: "no picture", stills: "a picture now and then", moving: "moving picture" };
const WHY = {
  thin: "the line carries no more",
  lossy: "the line loses too much for more",
  careful: "more did not fit and is tried again later",
  guessed: "the line is still being measured",
};
const WIDTH = 180;
const HEIGHT = 28;
const [LEAST_KBPS, MOST_KBPS] = [8, 4000];

/** @param {Line|null} line @param {Line[]} lines the newest last */
export function lineView(line, lines) {
  if (!line) return false;
  const way = (name, pictures, why, kbps, lost) =>
    h("p", { key: name }, h("strong", {}, `${name}: ${PICTURES[pictures] ?? pictures}`), why in WHY ? ` – ${WHY[why]}` : "", h("small", {}, `${rate(kbps)}, ${lost} % lost`));
  return h(
    "details",
    { class: "line", key: "line", "data-test": "line" },
    h("summary", {}, `Line ${rate(Math.min(line.up, line.down))}`),
    way("From the clinic", line.picturesUp, line.whyUp, line.up, line.lostUp),
    way("To the clinic", line.picturesDown, line.whyDown, line.down, line.lostDown),
    plot("Rate", lines, ({ up, down }) => [logarithmic(up), logarithmic(down)]),
    plot("Lost", lines, ({ lostUp, lostDown }) => [lostUp / 30, lostDown / 30]),
    plot(`Round trip ${(line.rtt / 1000).toFixed(1)} s`, lines, ({ rtt, queue }) => [queue / 2000, rtt / 2000]),
  );
}

const rate = (kbps) => (kbps < 1000 ? `${kbps} kbit/s` : `${(kbps / 1000).toFixed(1)} Mbit/s`);

const logarithmic = (kbps) => Math.log(Math.max(kbps, LEAST_KBPS) / LEAST_KBPS) / Math.log(MOST_KBPS / LEAST_KBPS);

/** Two curves, up (or the queue) and down (or the whole), of values from 0 to 1. */
function plot(title, lines, values) {
  const points = (index) =>
    lines.map((line, at) => `${(WIDTH * at) / Math.max(1, lines.length - 1)},${HEIGHT * (1 - Math.min(1, values(line)[index]))}`).join(" ");
  return h(
    "div",
    { class: "line-plot", key: title.split(" ")[0] },
    h("small", {}, title),
    h(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, the last minutes` },
      h("polyline", { class: "down", points: points(1) }),
      h("polyline", { class: "up", points: points(0) }),
    ),
  );
}
