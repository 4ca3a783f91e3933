// Building and patching the page's elements. Data reaches the page as text and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element from "tag.class.class", attributes and children. `vars` become CSS custom properties, `value` the value
 *  of a field; attributes that are null, undefined or false are left out, and so are such children. */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  const { vars = {}, value, ...rest } = attributes;
  if (rest.class) classes.push(rest.class);
  for (const [key, text] of Object.entries(rest)) {
    if (key !== "class" && text !== null && text !== undefined && text !== false) {
      element.setAttribute(key, text === true ? "" : text);
    }
  }
  if (classes.length) element.className = classes.join(" ");
  for (const [key, text] of Object.entries(vars)) element.style.setProperty(`--${key}`, text);
  if (value !== undefined) element.value = value;
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A drawing of pictures.svg. */
export function drawing(id, classes = "") {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  const kind = { i: "sign", c: "pictogram", u: "pictogram", p: "figure" }[id[0]];
  svg.setAttribute("class", `${kind} ${classes}`.trim());
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${id}`);
  svg.append(use);
  return svg;
}

export const sign = (name, classes) => drawing(`i-${name}`, classes);

/** Takes the drawings into the page, so that every `use` finds them without another request. */
export async function loadDrawings() {
  const response = await fetch("/static/pictures.svg");
  const parsed = new DOMParser().parseFromString(await response.text(), "image/svg+xml");
  const sprite = document.importNode(parsed.documentElement, true);
  sprite.setAttribute("class", "sprite");
  document.body.prepend(sprite);
}

/** Makes `current` look like `next` and keeps what is there already: a finger may rest on it, a canvas or a field be
 *  in use. Children are matched by `data-key`, or by place and name. */
export function patch(current, next) {
  if (current.nodeType === Node.TEXT_NODE) {
    if (current.data !== next.data) current.data = next.data;
    return;
  }
  if (current.nodeName !== "CANVAS") patchAttributes(current, next);
  if (current.nodeName === "INPUT" || current.nodeName === "TEXTAREA") {
    if (document.activeElement !== current && current.value !== next.value) current.value = next.value;
    return;
  }
  const keyed = new Map();
  for (const child of current.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let at = current.firstChild;
  for (const wanted of [...next.childNodes]) {
    const key = wanted.dataset?.key;
    const match = key ? keyed.get(key) : at;
    if (match && matches(match, wanted)) {
      if (match === at) at = at.nextSibling;
      else current.insertBefore(match, at);
      patch(match, wanted);
    } else {
      current.insertBefore(wanted, at);
    }
  }
  while (at) {
    const rest = at.nextSibling;
    at.remove();
    at = rest;
  }
}

function matches(there, wanted) {
  return there.nodeName === wanted.nodeName && there.dataset?.key === wanted.dataset?.key;
}

function patchAttributes(current, next) {
  for (const { name, value } of [...next.attributes]) {
    if (name !== "style" && current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  for (const { name } of [...current.attributes]) {
    if (name !== "style" && !next.hasAttribute(name)) current.removeAttribute(name);
  }
  // Through the object model: the content policy forbids style attributes.
  if (current.style.cssText !== next.style.cssText) current.style.cssText = next.style.cssText;
}
