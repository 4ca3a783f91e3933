/**
 * Descriptions of elements, and a patcher that makes the page match them.
 *
 * Views are pure functions from state to descriptions. Patching rather than rebuilding keeps what belongs to
 * the person: focus, the caret in a half-written advice, a voice note being played. Text is only ever set as
 * text, so nothing that a patient or health worker typed can become markup.
 *
 * @typedef {{tag: string, props: Record<string, any>, children: Child[], key: string|undefined}} Element_
 * @typedef {Element_|Node|string} Child a Node is put in place as it is: it has its own keeper
 */

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "rect", "line", "polyline"]);
/** Set on the element itself: their attributes give only the first value. */
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "muted", "open"]);

/** @type {WeakMap<Node, Element_>} what an element was last made from */
const made = new WeakMap();

/**
 * Describe an element. `key` tells it from its siblings across changes; `on…` are handlers; `created` gets the
 * new element once. Null, undefined and false children are left out.
 * @param {string} tag @param {Record<string, any>} [props] @param {...any} children @returns {Element_}
 */
export function h(tag, props = {}, ...children) {
  const { key, ...rest } = props ?? {};
  const kept = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return { tag, props: rest, key, children: kept.map((child) => (isPart(child) ? child : String(child))) };
}

/** Make the children of `parent` match. @param {Element} parent @param {any} children */
export function render(parent, ...children) {
  patchChildren(parent, h("root", {}, ...children).children);
}

function isPart(child) {
  return child instanceof Node || typeof child === "object";
}

function patchChildren(parent, children) {
  const keyed = new Map();
  const others = [];
  for (const node of parent.childNodes) {
    const key = made.get(node)?.key;
    if (key === undefined) others.push(node);
    else keyed.set(key, node);
  }
  const nodes = children.map((child) => {
    if (child instanceof Node) return child;
    if (typeof child === "string") return textNode(others, child);
    const old = child.key === undefined ? takeAlike(others, child.tag) : keyed.get(child.key);
    if (child.key !== undefined) keyed.delete(child.key);
    if (!old || made.get(old).tag !== child.tag) return create(child);
    patch(old, child);
    return old;
  });
  // Remove first, so that what stays is moved only where the order really changed: a moved <audio> stops.
  const wanted = new Set(nodes);
  for (const node of [...parent.childNodes]) if (!wanted.has(node)) node.remove();
  nodes.forEach((node, index) => {
    if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] ?? null);
  });
}

function textNode(others, text) {
  const index = others.findIndex((node) => node.nodeType === Node.TEXT_NODE);
  if (index < 0) return document.createTextNode(text);
  const [node] = others.splice(index, 1);
  if (node.data !== text) node.data = text;
  return node;
}

function takeAlike(others, tag) {
  const index = others.findIndex((node) => made.get(node)?.tag === tag);
  return index < 0 ? undefined : others.splice(index, 1)[0];
}

function create(description) {
  const { tag, props } = description;
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  made.set(element, { tag, props: {}, children: [], key: description.key });
  patch(element, description);
  props.created?.(element);
  return element;
}

function patch(element, description) {
  const before = made.get(element).props;
  for (const name of Object.keys(before)) {
    if (!(name in description.props)) setProp(element, name, undefined);
  }
  for (const [name, value] of Object.entries(description.props)) {
    if (PROPERTIES.has(name) || before[name] !== value) setProp(element, name, value);
  }
  made.set(element, description);
  patchChildren(element, description.children);
}

function setProp(element, name, value) {
  if (name === "created") return;
  if (name.startsWith("on")) element[name] = value ?? null;
  else if (PROPERTIES.has(name)) {
    const next = value ?? (name === "value" ? "" : false);
    if (element[name] !== next) element[name] = next;
  } else if (value === undefined || value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}
