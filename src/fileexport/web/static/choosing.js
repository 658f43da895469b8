/** Selecting and going through the listing, with the mouse and with the keyboard. */

import { byId } from "./dom.js";

/** Rows that Page Up and Page Down pass over. */
const PAGE = 15;
/** What the keys of a row are not taken from. */
const FIELDS = "input:not([type=checkbox]), select, textarea, summary, audio, video, iframe, dialog";

/**
 * @param {import("./listing.js").Listing} listing
 * @param {{remove?: () => void, rename?: () => void}} acts what Delete and F2 do
 */
export function chooseIn(listing, acts) {
  const { selection, table } = listing;
  table.table.addEventListener("click", (event) => clicked(listing, event));
  // A range of text is not what shift is pressed for here.
  table.table.addEventListener("mousedown", (event) => {
    if (event.shiftKey && table.placeOf(event.target) >= 0) event.preventDefault();
  });
  byId("select-all")?.addEventListener("change", (event) => {
    selection.all(listing.names, event.target.checked);
  });
  document.addEventListener("keydown", (event) => pressed(listing, acts, event));
}

/** @param {import("./listing.js").Listing} listing @param {MouseEvent} event */
function clicked(listing, event) {
  const { selection, table } = listing;
  const place = table.placeOf(event.target);
  const target = /** @type {Element} */ (event.target);
  if (place < 0 || !byId("select-all")) return;
  const name = listing.view[place].name;
  const box = target.closest("td.select") !== null;
  if (!box && (target.closest("a") !== null || marksText(event))) return;
  if (event.shiftKey) selection.extend(name, listing.names);
  else if (box || event.ctrlKey || event.metaKey) selection.toggle(name);
  else selection.only(name);
}

/** Whether somebody has marked text, to copy it say. @param {MouseEvent} event */
function marksText(event) {
  return !event.shiftKey && getSelection()?.isCollapsed === false;
}

/**
 * @param {import("./listing.js").Listing} listing
 * @param {{remove?: () => void, rename?: () => void}} acts
 * @param {KeyboardEvent} event
 */
function pressed(listing, acts, event) {
  const target = /** @type {Element} */ (event.target);
  if (byId("dialog").open || event.altKey || event.isComposing) return;
  if (target.closest(FIELDS) !== null) return leave(listing, target, event);
  const command = event.ctrlKey || event.metaKey ? `ctrl ${event.key.toLowerCase()}` : event.key;
  const act = commands(listing, acts, target, event)[command];
  if (act === undefined || act() === false) return;
  event.preventDefault();
}

/**
 * From the filter, Escape empties it and Arrow Down goes to the rows.
 * @param {import("./listing.js").Listing} listing
 * @param {Element} target
 * @param {KeyboardEvent} event
 */
function leave(listing, target, event) {
  const field = byId("filter").elements.filter;
  if (target !== field || !["Escape", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  if (event.key === "Escape") {
    field.value = "";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  listing.table.focus(0);
}

/**
 * What the keys do. One that returns false leaves the key to the browser.
 * @param {import("./listing.js").Listing} listing
 * @param {{remove?: () => void, rename?: () => void}} acts
 * @param {Element} target
 * @param {KeyboardEvent} event
 * @returns {Record<string, () => unknown>}
 */
function commands(listing, acts, target, event) {
  const { selection, table, view } = listing;
  const here = table.placeOf(target);
  const inRows = here >= 0 || target === document.body;
  const onButton = target.closest("button, [role=button]") !== null || (here < 0 && target.closest("a") !== null);
  const go = (place) => {
    if (!inRows || view.length === 0) return false;
    const next = Math.min(Math.max(place, 0), view.length - 1);
    if (event.shiftKey && byId("select-all")) {
      if (selection.anchor === null && here >= 0) selection.only(view[here].name);
      selection.extend(view[next].name, listing.names);
    }
    table.focus(next);
    return true;
  };
  // Where the row of the last step has been scrolled away, the way goes on from it.
  const from = here >= 0 ? here : listing.place;
  if (here >= 0) listing.place = here;
  return {
    ArrowDown: () => go(from + 1),
    ArrowUp: () => go(from - 1),
    PageDown: () => go(from + PAGE),
    PageUp: () => go(from - PAGE),
    Home: () => go(0),
    End: () => go(view.length - 1),
    " ": () => (here < 0 || !byId("select-all") || onButton ? false : selection.toggle(view[here].name)),
    "ctrl a": () => (inRows && byId("select-all") ? selection.all(listing.names, true) : false),
    "/": () => byId("filter").elements.filter.focus(),
    Delete: () => (selection.size > 0 && acts.remove ? acts.remove() : false),
    F2: () => (selection.size === 1 && acts.rename ? acts.rename() : false),
    Escape: () => (selection.size > 0 ? selection.clear() : false),
  };
}
