/** What is done with selected entries: download, delete, move, rename; and new directories. */

import { question, show } from "./asking.js";
import { byId, make, named, say } from "./dom.js";
import { count } from "./formats.js";
import { decodeName, encodeName, encodePath, problemOf, stemLength } from "./names.js";
import { send } from "./talking.js";

/** @typedef {import("./ordering.js").Entry} Entry */
/** @typedef {{label: string, error: string}} Failure */

/** Names that a question lists; the others are counted. */
const LISTED = 8;
/** Entries that go with one request: of thousands the first are done while the others wait. */
const AT_ONCE = 1000;
/** Entries that the server packs into one archive, other than a whole directory. */
const PACKED = 10000;

/**
 * Put the page's forms and buttons to work.
 * @param {import("./listing.js").Listing} listing
 * @returns {{remove?: () => void, rename?: () => void}} what keys may do, too
 */
export function actOn(listing) {
  const form = byId("entries");
  const acts = {
    remove: byId("delete") ? () => tell(remove(listing)) : undefined,
    rename: byId("rename") ? () => tell(rename(listing)) : undefined,
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pressed = event.submitter;
    if (pressed?.id === "delete") acts.remove?.();
    else if (pressed?.name === "format") download(listing, pressed.formAction, pressed.value);
  });
  instead("move-menu", () => tell(move(listing)));
  instead("rename-menu", () => acts.rename?.());
  byId("new-directory")?.addEventListener("submit", (event) => {
    event.preventDefault();
    tell(newDirectory(listing, event.target));
  });
  return acts;
}

/**
 * Carry something out; what goes wrong is told in the dialog. That the session is over stands in the page.
 * @param {Promise<unknown>} act
 */
export function tell(act) {
  act.catch((error) => {
    // Nothing is under way any more.
    say();
    if (error.status !== 401) show("That did not work", make("p", {}, error.message));
  });
}

/** A menu with fields of its own asks in the dialog instead. @param {string} id @param {() => void} act */
function instead(id, act) {
  byId(id)
    ?.querySelector("summary")
    .addEventListener("click", (event) => {
      event.preventDefault();
      act();
    });
}

/**
 * Send the names that are selected, also of rows that are not written, as the page's own form would.
 * @param {import("./listing.js").Listing} listing
 * @param {string} url
 * @param {string} format
 */
function download(listing, url, format) {
  if (listing.complete && listing.selection.size === listing.entries.length) return whole(format);
  if (listing.selection.size > PACKED) {
    const most = `An archive holds ${count(PACKED, "entry", "entries")} at most, or the whole directory`;
    return tell(show("Too many", make("p", {}, `${most}: select fewer, or all.`)));
  }
  const fields = [["format", format], ...fieldsOf(listing.chosen)];
  const hidden = fields.map(([name, value]) => make("input", { type: "hidden", name, value }));
  return leave(make("form", { method: "post", action: url, hidden: true }, ...hidden));
}

/** Download all of the directory. @param {string} format */
function whole(format) {
  const field = make("input", { type: "hidden", name: "archive", value: format });
  return leave(make("form", { method: "get", action: location.pathname, hidden: true }, field));
}

/** Send a form that is answered by a download. @param {HTMLFormElement} form */
function leave(form) {
  document.body.append(form);
  document.body.dispatchEvent(new CustomEvent("download"));
  form.submit();
  form.remove();
}

/**
 * Send entries, some at a time, and tell what became of them; the listing shows it.
 * @param {import("./listing.js").Listing} listing
 * @param {string} url
 * @param {Entry[]} entries
 * @param {[string, string][]} fields what goes with all of them
 * @param {[string, string]} words what is being done, and what was, for people
 * @returns {Promise<boolean>} whether all was done
 */
async function carryOut(listing, url, entries, fields, [doing, done]) {
  const sum = { count: 0, failed: /** @type {Failure[]} */ ([]) };
  let begin = 0;
  try {
    for (; begin < entries.length; begin += AT_ONCE) {
      say(`${doing} ${count(entries.length - begin, "entry", "entries")} …`);
      const part = entries.slice(begin, begin + AT_ONCE);
      const labels = new Map(part.map((entry) => [valueOf(entry), entry.label]));
      const result = await outcome(send(url, [...fieldsOf(part), ...fields]));
      sum.count += result.moved ?? result.removed;
      for (const { entry, name, error } of result.failed) sum.failed.push({ label: labels.get(entry) ?? name, error });
    }
  } catch (error) {
    if (begin === 0) throw error;
    // What came before is told, too; what could not be tried any more has this one's reason.
    for (const { label } of entries.slice(begin)) sum.failed.push({ label, error: error.message });
  } finally {
    await listing.refresh().catch(() => {});
  }
  report(sum, `${done} ${count(sum.count, "entry", "entries")}.`);
  return sum.failed.length === 0;
}

/** What became of each entry, also where that is an error. @param {Promise<any>} answer */
function outcome(answer) {
  return answer.catch((error) => {
    if (!error.outcome) throw error;
    return error.outcome;
  });
}

/** @param {Entry[]} entries @returns {[string, string][]} */
function fieldsOf(entries) {
  return entries.map((entry) => ["entry", valueOf(entry)]);
}

/**
 * A directory is named as one: what has become one since the question is not removed with its content.
 * @param {Entry} entry
 */
function valueOf({ name, type }) {
  return type === "directory" ? `${name}/` : name;
}

/** What a question calls these. @param {Entry[]} entries */
function some(entries) {
  if (entries.length === 1) return ["“", named(entries[0].label), "”"];
  return [count(entries.length, "entry", "entries")];
}

/** @param {Entry[]} entries */
function names(entries) {
  if (entries.length < 2) return [];
  const listed = entries.slice(0, LISTED).map((entry) => make("li", {}, named(entry.label)));
  if (entries.length > LISTED) listed.push(make("li", {}, `and ${count(entries.length - LISTED, "other")}`));
  return [make("ul", { class: "names", tabindex: "0", "aria-label": "Names" }, ...listed)];
}

/** @param {import("./listing.js").Listing} listing */
async function remove(listing) {
  const chosen = listing.chosen;
  if (chosen.length === 0) return;
  const folders = chosen.some((entry) => entry.type === "directory");
  const it = chosen.length === 1 ? "it" : "them";
  const inside = folders ? ` with all that is in ${it}` : "";
  const answer = await question({
    title: "Delete?",
    body: [
      make("p", {}, "This deletes ", ...some(chosen), inside, " for good."),
      ...names(chosen),
    ],
    choices: [{ value: "delete", label: "Delete", style: "danger" }],
  });
  if (answer === null) return;
  await carryOut(listing, byId("delete").formAction, chosen, [["confirm", "1"]], ["Deleting", "Deleted"]);
}

/** @param {import("./listing.js").Listing} listing */
async function move(listing) {
  const chosen = listing.chosen;
  if (chosen.length === 0) return;
  const folders = listing.entries.filter((entry) => entry.type === "directory").slice(0, 500);
  const replace = make("input", { type: "checkbox", name: "replace", value: "1" });
  const options = ["..", ...folders.map((entry) => decodeName(entry.name) ?? "")].filter(Boolean);
  const answer = await question({
    title: "Move",
    body: [
      make("p", {}, "Where shall ", ...some(chosen), " go?"),
      ...names(chosen),
      label("To the directory", { name: "to", list: "folders", required: true, placeholder: "../archive" }),
      make("datalist", { id: "folders" }, ...options.map((value) => make("option", { value }))),
      make("label", { class: "check" }, replace, " Replace files of the same name"),
    ],
    choices: [{ value: "move", label: "Move", style: "main" }],
  });
  if (answer === null) return;
  /** @type {[string, string][]} */
  const fields = [["to", encodePath(String(answer.data.get("to")))]];
  if (answer.data.has("replace")) fields.push(["replace", "1"]);
  await carryOut(listing, byId("move").formAction, chosen, fields, ["Moving", "Moved"]);
}

/** @param {import("./listing.js").Listing} listing */
async function rename(listing) {
  const [entry] = listing.chosen;
  if (listing.selection.size !== 1) return show("Rename", make("p", {}, "Select one entry to rename."));
  const before = decodeName(entry.name) ?? "";
  const field = label("New name", { name: "name", value: before, maxlength: "255", required: true });
  setTimeout(() => field.querySelector("input").setSelectionRange(0, stemLength(before)));
  const answer = await question({
    title: "Rename",
    body: [make("p", {}, "A new name for “", named(entry.label), "”."), field],
    choices: [{ value: "rename", label: "Rename", style: "main" }],
    problem: (data) => problemOf(String(data.get("name"))),
  });
  const name = String(answer?.data.get("name") ?? before);
  if (name === before) return undefined;
  const words = /** @type {[string, string]} */ (["Renaming", "Renamed"]);
  const done = await carryOut(listing, byId("rename").formAction, [entry], [["name", name]], words);
  if (done) listing.selection.only(encodeName(name));
  return undefined;
}

/** @param {import("./listing.js").Listing} listing @param {HTMLFormElement} form */
async function newDirectory(listing, form) {
  const field = /** @type {HTMLInputElement} */ (form.elements.namedItem("name"));
  field.setCustomValidity(problemOf(field.value));
  field.addEventListener("input", () => field.setCustomValidity(""), { once: true });
  if (!form.reportValidity()) return;
  await send(form.action, [["name", field.value]]);
  say("Made the directory “", named(field.value), "”.");
  form.reset();
  form.closest("details")?.removeAttribute("open");
  await listing.refresh();
}

/**
 * Say what was done, and list what was not.
 * @param {{count: number, failed: Failure[]}} result
 * @param {string} done
 */
function report({ count: some, failed }, done) {
  say(some > 0 ? done : "");
  if (failed.length === 0) return;
  const lines = failed.slice(0, 100).map(({ label, error }) => make("li", {}, named(label), `: ${error}`));
  const list = make("ul", { class: "names", tabindex: "0", "aria-label": "Names" }, ...lines);
  const title = `${count(failed.length, "entry is", "entries are")} as before`;
  tell(show(title, list));
}

/** @param {string} text @param {Record<string, any>} attributes */
function label(text, attributes) {
  const field = make("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  return make("label", {}, `${text} `, field);
}
