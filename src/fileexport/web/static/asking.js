/** Questions and other things in the page's one dialog: what comes while it is open waits until it is not. */

import { button, byId, make } from "./dom.js";

/** Ends when nothing is open and nothing waits to be. */
let last = Promise.resolve();

/**
 * @typedef {object} Choice
 * @property {string} value
 * @property {string} label
 * @property {"main" | "danger" | ""} [style]
 *
 * @typedef {object} Question
 * @property {string} title
 * @property {(Node | string)[]} body
 * @property {Choice[]} choices beside the one that does nothing
 * @property {string} [refuse] the label of that; empty for none
 * @property {(data: FormData) => string} [problem] what is wrong with the answer, as a sentence
 */

/**
 * Ask something. Resolves with the value of the button that was pressed and the fields, or with null.
 * @param {Question} question
 * @returns {Promise<{choice: string, data: FormData} | null>}
 */
export async function question({ title, body, choices, refuse = "Cancel", problem = () => "" }) {
  /** @type {{choice: string, data: FormData} | null} */
  let answer = null;
  const alarm = make("p", { class: "wrong", role: "alert" });
  const take = (event) => {
    event.preventDefault();
    const data = new FormData(form);
    alarm.textContent = problem(data);
    if (alarm.textContent !== "") return;
    answer = { choice: event.submitter?.value || choices[0].value, data };
    close();
  };
  // What cannot be undone is not what Enter does at once.
  const first = choices[0].style === "danger";
  const no = refuse === "" ? [] : [button(refuse, close, { value: "cancel", "data-first": first })];
  const form = make(
    "form",
    { method: "dialog", class: "question", onsubmit: take },
    make("h2", { id: "dialog-title" }, title),
    ...body,
    alarm,
    make("div", { class: "buttons choices" }, ...no, ...choices.map(submit)),
  );
  await open(form);
  return answer;
}

/**
 * Show something, with a button that closes it.
 * @param {string} title
 * @param {...(Node | string)} body
 */
export function show(title, ...body) {
  return question({ title, body, refuse: "", choices: [{ value: "close", label: "Close", style: "main" }] });
}

/**
 * Show content in the dialog as soon as it is free; resolves when it has closed. Its title has the id
 * `dialog-title`. The first field, or what has `data-first`, gets the focus.
 * @param {HTMLElement} content
 * @returns {Promise<void>}
 */
export function open(content) {
  last = last.then(() => shown(content));
  return last;
}

/** Close what is open. */
export function close() {
  byId("dialog").close();
}

/** @param {HTMLElement} content @returns {Promise<void>} */
function shown(content) {
  const dialog = byId("dialog");
  const before = document.activeElement;
  dialog.setAttribute("aria-labelledby", "dialog-title");
  dialog.replaceChildren(content);
  dialog.showModal();
  const field = dialog.querySelector("input:not([type=hidden]), select, textarea");
  (field ?? dialog.querySelector("[data-first]") ?? dialog.querySelector("button[type=submit]"))?.focus();
  return new Promise((resolve) => {
    const end = () => {
      dialog.replaceChildren();
      // A row that was written anew meanwhile has nothing to focus.
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
      resolve();
    };
    dialog.addEventListener("close", end, { once: true });
  });
}

/** @param {Choice} choice */
function submit({ value, label, style = "" }) {
  return make("button", { type: "submit", name: "choice", value, class: `button ${style}`.trim() }, label);
}
