/**
 * Photos of a case. Each comes in rising quality: what is there is shown at once and gives way to what is better, in a
 * place whose size does not change.
 */

import { fileUrl } from "./api.js";
import { arriving } from "./arriving.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { count, fileSize } from "./labels.js";

const DAMAGE = {
  no_picture: "This file is no picture. Ask the clinic for another photo.",
  too_large: "This picture is too large to be shown.",
};

/** The best form of a photo that is here. @param {import("./state.js").FileCard} photo */
export function best(photo) {
  const forms = [photo, ...photo.renditions].filter((form) => form.complete && !form.damage);
  return forms.sort((a, b) => b.size - a.size)[0];
}

const shownPhotos = (files) => files.filter((file) => file.role === "photo" && best(file));

/** @param {import("./state.js").Case} shown @param {any} actions */
export function photos(shown, actions) {
  const files = shown.files.filter((file) => file.role === "photo" || file.role === "clip");
  if (!files.length) return false;
  return h(
    "section",
    { class: "block", key: "photos" },
    h("h3", {}, icon("photo"), count(files.length, "photo")),
    h(
      "ul",
      { class: "thumbnails" },
      files.map((file, index) => {
        const form = best(file);
        return h(
          "li",
          { key: file.digest, "data-test": "photo", "data-digest": file.digest, "data-complete": String(file.complete), "data-shows": form ? quality(file, form) : "" },
          place(file, form, index, actions),
        );
      }),
    ),
  );
}

const quality = (file, form) => (form === file ? "photo" : form.name);

function place(file, form, index, actions) {
  if (file.damage && !form) return h("div", { class: "thumbnail waiting-file damaged", "data-test": "damaged" }, icon("alert"), h("span", { class: "quiet" }, DAMAGE[file.damage] ?? "This file is damaged."));
  if (!form) return h("div", { class: "thumbnail waiting-file" }, file.size ? arriving(file) : h("span", { class: "quiet" }, "On its way"));
  if (file.role === "clip") return h("video", { class: "thumbnail", controls: true, preload: "metadata", src: fileUrl(file.digest) });
  const better = nextForm(file);
  return h(
    "button",
    { class: "thumbnail", type: "button", "aria-label": `Photo ${index + 1}, show large`, onclick: () => actions.enlarge(file.digest) },
    h("img", { src: fileUrl(form.digest), alt: "" }),
    better && h("progress", { max: better.size, value: better.received, "aria-label": "A better picture is arriving" }),
  );
}

/** What is still to come without being asked for, or was asked for. */
function nextForm(file) {
  return [...file.renditions, file].sort((a, b) => a.size - b.size).find((form) => !form.complete && form.size > (best(file)?.size ?? 0));
}

/** One photo large, over everything. @param {import("./state.js").State} state @param {any} actions */
export function photoDialog(state, actions) {
  const files = shownPhotos(state.case?.files ?? []);
  const at = files.findIndex((file) => file.digest === state.enlarged);
  if (at < 0) return false;
  const file = files[at];
  const form = best(file);
  const step = (by) => actions.enlarge(files[(at + by + files.length) % files.length].digest);
  const keys = (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  return h(
    "dialog",
    { class: "photo-dialog", key: "photo", "aria-label": `Photo ${at + 1} of ${files.length}`, "data-test": "photo-large", "data-shows": quality(file, form), onclose: () => actions.enlarge(""), onkeydown: keys, created: (element) => queueMicrotask(() => element.showModal()) },
    h("div", { class: "photo-frame" }, h("img", { src: fileUrl(form.digest), alt: `Photo ${at + 1} of ${files.length}` })),
    h(
      "div",
      { class: "photo-bar" },
      files.length > 1 && h("button", { type: "button", "aria-label": "Photo before", onclick: () => step(-1) }, icon("previous")),
      h("span", {}, `${at + 1} of ${files.length}`),
      files.length > 1 && h("button", { type: "button", "aria-label": "Next photo", onclick: () => step(1) }, icon("next")),
      toCome(state, file, actions),
      h("button", { type: "button", onclick: () => actions.enlarge("") }, icon("close"), "Close"),
    ),
  );
}

function toCome(state, file, actions) {
  const better = nextForm(file);
  if (better) return h("span", { class: "to-come" }, arriving(better, "A better one is arriving"));
  if (file.original_gone) return h("span", { class: "quiet" }, "The clinic no longer has a larger one.");
  if (!file.original_bytes || file.renditions.some((form) => form.name === "original")) return false;
  if (file.original_asked_at) return h("span", { class: "quiet", "data-test": "original-asked" }, "Asked for the original; it comes when the clinic's line allows.");
  return h(
    "button",
    { type: "button", disabled: state.link !== "up", onclick: () => actions.askOriginal(state.case.card.consult, file.digest), "data-test": "ask-original" },
    icon("arrived"),
    `Ask for the original (${fileSize(file.original_bytes)})`,
  );
}
