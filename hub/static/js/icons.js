/** Signs, drawn as strokes on a 24 by 24 grid. Always beside a word or with an accessible name on the button. */

import { h } from "./dom.js";

const PATHS = {
  phone: ["M5 4h4l2 5-2.5 1.8a11 11 0 0 0 4.7 4.7L15 13l5 2v4a1 1 0 0 1-1 1A15 15 0 0 1 4 5a1 1 0 0 1 1-1z"],
  hangUp: ["M3 13.5c5-5 13-5 18 0l-2.2 2.8-3.6-1.6v-2.4a10 10 0 0 0-6.4 0v2.4l-3.6 1.6z"],
  alert: ["M12 3 22 20H2z", "M12 9.5v4.5", "M12 17v.2"],
  microphone: ["M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3z", "M6 11a6 6 0 0 0 12 0", "M12 17v4"],
  microphoneOff: ["M15 9V6a3 3 0 0 0-5.7-1.3", "M9 9v2a3 3 0 0 0 4.5 2.6", "M6 11a6 6 0 0 0 9.4 4.9", "M12 17v4", "M4 4l16 16"],
  camera: ["M3 7h12v10H3z", "M15 11l6-3v8l-6-3"],
  cameraOff: ["M7 7h8v6", "M15 11l6-3v8l-4-2", "M13 17H3V7", "M4 4l16 16"],
  photo: ["M4 6h4l1.5-2h5L16 6h4v13H4z", "M12 9a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7z"],
  voice: ["M4 10v4", "M8 7v10", "M12 4v16", "M16 8v8", "M20 10v4"],
  clock: ["M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18z", "M12 7v5l3.5 2"],
  check: ["M5 12.5l4.5 4.5L19 7"],
  arrived: ["M12 4v10", "M8 10.5l4 4 4-4", "M5 19h14"],
  heard: ["M7 9a5 5 0 1 1 9.5 2c-1 2-3 2.6-3 5a3 3 0 0 1-5.5 1.5", "M10 9.5a2 2 0 1 1 3.5 1.5c-.8.8-1.5 1-1.5 2"],
  sound: ["M4 9h4l5-4v14l-5-4H4z", "M16.5 9a4 4 0 0 1 0 6", "M19 6.5a8 8 0 0 1 0 11"],
  soundOff: ["M4 9h4l5-4v14l-5-4H4z", "M16.5 9.5l5 5", "M21.5 9.5l-5 5"],
  bell: ["M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15z", "M10 20.5h4"],
  link: ["M3 9a13 13 0 0 1 18 0", "M6.5 12.5a8 8 0 0 1 11 0", "M10 16a3 3 0 0 1 4 0", "M12 19.5v.1"],
  linkOff: ["M3 9a13 13 0 0 1 5-3", "M12 5.2A13 13 0 0 1 21 9", "M6.5 12.5a8 8 0 0 1 4-2.3", "M12 19.5v.1", "M4 4l16 16"],
  key: ["M8 9a5 5 0 1 1 0 10 5 5 0 0 1 0-10z", "M11.5 10.5L20 4", "M16.5 6.7l2.6 3.2"],
  person: ["M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8z", "M4 21a8 8 0 0 1 16 0"],
  record: ["M12 6a6 6 0 1 1 0 12 6 6 0 0 1 0-12z"],
  stop: ["M7 7h10v10H7z"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  previous: ["M14.5 5.5L8 12l6.5 6.5"],
  next: ["M9.5 5.5L16 12l-6.5 6.5"],
  cross: ["M10 4h4v6h6v4h-6v6h-4v-6H4v-4h6z"],
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  return h(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    PATHS[name].map((d) => h("path", { d })),
  );
}
