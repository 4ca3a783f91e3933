/** What of a file is here, in a bar and in words. */

import { h } from "./dom.js";
import { fileSize } from "./labels.js";

/** @param {{size: number, received: number}} file @param {string} [what] */
export function arriving(file, what = "Arriving") {
  const name = `${Math.floor((100 * file.received) / file.size)} % of ${fileSize(file.size)}`;
  return [h("progress", { max: file.size, value: file.received, "aria-label": `${what}, ${name}` }), h("span", { class: "quiet" }, `${what}: ${name}`)];
}
