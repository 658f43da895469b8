/** How the page asks its server, and what it makes of the answers. */

import { button, byId, make } from "./dom.js";

/** The server's answer was an error; the message is its sentence. */
class Refusal extends Error {
  /**
   * @param {string} sentence
   * @param {number} status 0 where there was no answer
   * @param {string} [body]
   */
  constructor(sentence, status, body = "") {
    super(sentence);
    this.status = status;
    this.body = body;
  }

  /** What became of each entry, where only some could be done, or none; else null. @returns {any} */
  get outcome() {
    try {
      const found = JSON.parse(this.body);
      return Array.isArray(found.failed) ? found : null;
    } catch {
      return null;
    }
  }
}

/**
 * Ask for JSON. Throws `Refusal`; a session that is over is told of in the page, too.
 * @param {string} url
 * @param {RequestInit} [how]
 * @returns {Promise<any>}
 */
export async function ask(url, how = {}) {
  const response = await answer(url, { ...how, headers: { Accept: "application/json", ...how.headers } });
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

/**
 * Ask, and get the response of a request that was answered well. Throws `Refusal`.
 * @param {string} url
 * @param {RequestInit} [how]
 */
export async function answer(url, how = {}) {
  let response;
  try {
    response = await fetch(url, how);
  } catch (error) {
    if (how.signal?.aborted) throw error;
    throw new Refusal("The server cannot be reached. Try again.", 0);
  }
  const looks = (how.method ?? "GET") === "GET";
  if (response.ok) {
    const note = byId("session-over");
    // Where anybody may look, an answer to that says nothing of the session.
    if (!looks || note?.dataset.looks !== undefined) note?.remove();
    return response;
  }
  if (response.status === 401) tellSessionOver(looks);
  const body = await response.text();
  throw new Refusal(sentenceOf(body, response.status), response.status, body);
}

/**
 * Send a form as browsers do, for JSON.
 * @param {string} url
 * @param {Iterable<[string, string]>} fields
 */
export function send(url, fields) {
  return ask(url, { method: "POST", body: new URLSearchParams(Array.from(fields)) });
}

/**
 * The sentence of an error's body: problem+json, or a line of text.
 * @param {string} body
 * @param {number} status
 * @returns {string}
 */
export function sentenceOf(body, status) {
  let sentence = "";
  try {
    const problem = JSON.parse(body);
    sentence = problem.detail ?? problem.title ?? problem.failed?.[0]?.error ?? "";
  } catch {
    sentence = body.startsWith("<") ? "" : body.split("\n")[0].replace(/^ERROR - /, "");
  }
  if (sentence === "") return `The server answered ${status}.`;
  return sentence.charAt(0).toUpperCase() + sentence.slice(1) + (/[.!?]$/.test(sentence) ? "" : ".");
}

/** Where to sign in, to come back here. */
function signInUrl() {
  const prefix = byId("page").dataset.prefix;
  return `${prefix}/-/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
}

/**
 * Say once that the server no longer knows who this is. It stays until it is closed, or a change is answered
 * well; or a look, where looks were refused.
 * @param {boolean} [looks] whether it was a look that was refused
 */
export function tellSessionOver(looks = false) {
  const note = byId("session-over") ?? sessionOver();
  if (looks) note.dataset.looks = "";
}

function sessionOver() {
  // In a tab of its own: uploads of this one stay as they are, and go on after it.
  const link = make("a", { href: signInUrl(), target: "_blank", rel: "opener" }, "Sign in again");
  const close = button("Close", () => note.remove());
  const note = make(
    "p",
    { id: "session-over", class: "note", role: "alert" },
    "Your session is over. ",
    link,
    ", then go on here: nothing is lost. ",
    close,
  );
  byId("page").prepend(note);
  return note;
}
