/** Elements, and nothing that reads text as HTML. */

import { visible } from "./names.js";

/**
 * Make an element. Attributes that are true stand without a value, those that are false or null do not stand
 * at all; `on…` is a listener.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * The element of this id, or null: what the visitor has no right for is not in the page.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A button that is no submit.
 * @param {string} label
 * @param {(event: Event) => void} click
 * @param {Record<string, any>} [attributes]
 */
export function button(label, click, attributes = {}) {
  return make("button", { type: "button", class: "button", onclick: click, ...attributes }, label);
}

/**
 * A button with an icon, whose word gives way where there is little room.
 * @param {string} kind of the icon
 * @param {string} label
 * @param {(event: Event) => void} click
 * @param {string} id
 */
export function tool(kind, label, click, id) {
  const made = button("", click, { id, title: label });
  const icon = make("span", { class: "icon", "data-kind": kind, "aria-hidden": "true" });
  made.append(icon, make("span", { class: "word" }, label));
  return made;
}

/**
 * A name for a reader, kept apart from the direction of the text around it.
 * @param {string} name
 */
export function named(name) {
  return make("bdi", {}, visible(name));
}

/**
 * Write text into an element where it differs, so that nothing is read out again.
 * @param {Element} element
 * @param {string} text
 */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Say something in the page's live region.
 * @param {...(Node | string)} children
 */
export function say(...children) {
  byId("status")?.replaceChildren(...children);
}

/**
 * A function that does something once in the next frame, however often it is called before.
 * @param {() => void} act
 */
export function inFrame(act) {
  let waits = false;
  return () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      act();
    });
  };
}
