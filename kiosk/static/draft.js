// The guided message: voice, photo, complaint, urgency, then a look at all of it.

import { drawing, h, sign } from "./dom.js";
import { button, heading, minutes } from "./parts.js";

const STEPS = [
  ["voice", "mic"],
  ["photo", "camera"],
  ["complaint", "body"],
  ["urgency", "face"],
  ["review", "check"],
];
const URGENCIES = ["routine", "soon", "urgent"];

export function draft(view) {
  const { draft: now, words } = view;
  const at = STEPS.findIndex(([step]) => step === now.step);
  const last = at === STEPS.length - 1;
  return [
    h(
      "nav.steps",
      {},
      STEPS.map(([step, icon], index) =>
        button(
          { do: "step", value: step },
          `step-${step}`,
          {
            kind: `plain ${index === at ? "chosen" : ""} ${filled(now, step) ? "filled" : ""}`,
            label: words[`draft_${step}`],
            "aria-current": index === at ? "step" : null,
          },
          h("div.disc", {}, sign(icon), filled(now, step) && sign("check", "tick")),
          h("span", {}, words[`draft_${step}`]),
        ),
      ),
    ),
    h(
      "main.draft",
      { "data-key": `draft-${now.step}` },
      heading(view),
      { voice, photo, complaint, urgency, review }[now.step](view),
      h(
        "footer",
        {},
        at > 0 &&
          button({ do: "step", value: STEPS[at - 1][0] }, "back", { icon: "back", label: words.back, kind: "quiet" }),
        !last &&
          anything(now) &&
          button({ do: "save" }, "save_now", { icon: "check", label: words.save_now, kind: "quiet middle" }),
        last
          ? button({ do: "next" }, "save", { icon: "check", label: words.save, kind: "large go", disabled: now.busy })
          : button({ do: "next" }, "next", { icon: "next", label: words.next, kind: "large", disabled: now.recording }),
      ),
    ),
  ];
}

function filled(now, step) {
  if (step === "voice") return now.voice_ms > 0;
  if (step === "photo") return now.photos.length > 0;
  if (step === "complaint") return now.complaints.length > 0;
  return false;
}

const anything = (now) => !now.recording && (now.voice_ms > 0 || now.photos.length > 0 || now.complaints.length > 0);

function voice({ draft: now, words }) {
  if (now.voice_ms > 0 && !now.recording) {
    return h(
      "div.voice",
      {},
      recorded(now, words),
      button({ do: "discard_voice" }, "discard_voice", { icon: "again", label: words.record_again, kind: "quiet" }),
    );
  }
  const label = now.recording ? words.stop_recording : words.record;
  return h(
    "div.voice",
    { class: now.recording ? "recording" : "", vars: { level: now.recording ? now.level.toFixed(2) : 0 } },
    h(
      "div.halo",
      {},
      button({ do: "record" }, "record", { icon: now.recording ? "stop" : "mic", label, kind: "round record", key: "record" }),
    ),
    now.recording &&
      h(
        "div.meter",
        { "data-test": "level" },
        h("time", {}, minutes(now.elapsed_ms)),
        h("div.bars", {}, Array.from({ length: 9 }, (_, index) => h("i", { vars: { at: Math.abs(index - 4) } }))),
      ),
  );
}

function recorded(now, words) {
  return h(
    "div.recorded",
    { "data-test": "recorded" },
    h("div.done", {}, sign("check")),
    h("div", {}, h("b", {}, words.recorded), h("time", {}, minutes(now.voice_ms))),
  );
}

function photo(view) {
  const { draft: now, words } = view;
  if (view.notices.some((notice) => notice.code === "camera_missing")) {
    return h("div.photo.none", { "data-test": "no_camera" }, sign("no-camera"), h("p", {}, words.no_camera));
  }
  return h(
    "div.photo",
    { class: now.busy ? "busy" : "" },
    h("div.frame", {}, sign("camera", "waiting"), h("canvas.own", { "data-key": "own", width: 4, height: 3 })),
    h(
      "div.controls",
      {},
      button({ do: "photo" }, "photo", { icon: "camera", label: words.take_photo, kind: "round shutter", disabled: now.busy }),
      now.photos.length > 0 && h("div.thumbs", {}, now.photos.map((id) => thumb(id, words))),
    ),
  );
}

function thumb(id, words) {
  return h(
    "figure.thumb",
    { "data-key": `photo-${id}` },
    h("img", { src: fileUrl(id), alt: "" }),
    words &&
      button({ do: "discard_photo", value: id }, `discard_photo-${id}`, { icon: "cross", kind: "remove", label: words.remove }, []),
  );
}

const fileUrl = (id) => `/files/${encodeURIComponent(id)}`;

function complaint(view) {
  return h(
    "div.complaints",
    { vars: { count: view.complaints.length } },
    view.complaints.map((code) =>
      button({ do: "complaint", value: code }, `complaint-${code}`, {
        icon: picture(code),
        label: view.words[`complaint_${code}`] ?? code,
        kind: view.draft.complaints.includes(code) ? "tile chosen" : "tile",
        "aria-pressed": String(view.draft.complaints.includes(code)),
      }),
    ),
  );
}

/** The pictogram of a complaint; a code that is not drawn has the general one. */
export function picture(code) {
  return document.getElementById(`c-${code}`) ? `c-${code}` : "c-other";
}

function urgency(view) {
  return h(
    "div.urgencies",
    {},
    URGENCIES.map((value) =>
      button({ do: "urgency", value }, `urgency-${value}`, {
        icon: `u-${value}`,
        label: view.words[`urgency_${value}`],
        kind: `tile ${value} ${view.draft.urgency === value ? "chosen" : ""}`,
        "aria-pressed": String(view.draft.urgency === value),
      }),
    ),
  );
}

function review(view) {
  const { draft: now, words, worker } = view;
  const part = (step, name, ...children) =>
    button({ do: "step", value: step }, `review-${step}`, { kind: `tile part ${name}`, label: words[`draft_${step}`] }, children);
  return h(
    "div.review",
    { class: worker ? "with-fields" : "" },
    h(
      "div.parts",
      {},
      now.voice_ms > 0
        ? part("voice", "has", sign("mic"), h("span", {}, minutes(now.voice_ms)))
        : part("voice", "lacks", sign("no-microphone"), h("span", {}, words.no_voice)),
      now.photos.length
        ? part("photo", "has", h("div.thumbs", {}, now.photos.slice(0, 2).map((id) => thumb(id))))
        : part("photo", "lacks", sign("no-camera"), h("span", {}, words.no_photo)),
      now.complaints.length
        ? part(
            "complaint",
            "has",
            h("div.pictograms", {}, now.complaints.slice(0, 4).map((code) => drawing(picture(code)))),
            now.complaints.length === 1 && h("span", {}, words[`complaint_${now.complaints[0]}`] ?? now.complaints[0]),
          )
        : part("complaint", "lacks", sign("body"), h("span", {}, words.no_complaint)),
      part("urgency", `has ${now.urgency}`, drawing(`u-${now.urgency}`), h("span", {}, words[`urgency_${now.urgency}`])),
    ),
    worker &&
      h(
        "div.fields",
        {},
        field("patient", words.patient, words.patient_hint, h("input", { type: "text", value: now.patient })),
        field("text", words.note, words.note_hint, h("textarea", { rows: 3, value: now.text })),
      ),
  );
}

/** A field of the worker's; app.js sends it as the action `name` while it is written. */
function field(name, label, hint, input) {
  for (const [key, text] of Object.entries({ "data-field": name, "data-test": name, placeholder: hint })) {
    input.setAttribute(key, text);
  }
  input.setAttribute("data-key", name);
  return h("label.field", {}, h("span", {}, label), input);
}
