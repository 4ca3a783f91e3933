/** What of a file is here, in a bar and in words. */

import { h } from "./dom.js";
import { fileSize } from "./labels.js";

/** @param {{size: number, received: number}} file */
export function arriving(file) {
  const name = `${Math.floor((100 * file.received) / file.size)} % of ${fileSize(file.size)}`;
  return [h("progress", { max: file.size, value: file.received, "aria-label": `Arriving, ${name}` }), h("span", { class: "quiet" }, `Arriving: ${name}`)];
}
