/** A look at a file without leaving the page. */

import { close, open } from "./asking.js";
import { button, byId, make, named } from "./dom.js";
import { date, size } from "./formats.js";
import { answer } from "./talking.js";

/** @typedef {import("./ordering.js").Entry} Entry */

/** Bytes of a text that are shown. */
const TEXT = 64 * 1024;

/** What shows a kind of file. @type {Record<string, (entry: Entry) => HTMLElement>} */
const VIEWS = {
  image: ({ href, label }) => make("img", { src: href, alt: label }),
  audio: ({ href, label }) => make("audio", { src: href, controls: true, "aria-label": label }),
  video: ({ href, label }) => make("video", { src: href, controls: true, "aria-label": label }),
  pdf: ({ href, label }) => make("iframe", { src: href, title: label }),
  text,
};

/**
 * Show files in the dialog where a plain click on their link would open them.
 * @param {import("./listing.js").Listing} listing
 */
export function previewIn(listing) {
  listing.table.table.addEventListener("click", (event) => {
    const modified = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    const place = event.target.closest("a") === null ? -1 : listing.table.placeOf(event.target);
    if (place < 0 || modified || event.button !== 0 || !shows(listing.view[place])) return;
    event.preventDefault();
    new Preview(listing, listing.view[place]);
  });
}

/** @param {Entry} entry */
function shows(entry) {
  return entry.type === "file" && entry.href !== "" && entry.kind in VIEWS;
}

class Preview {
  /** @param {import("./listing.js").Listing} listing @param {Entry} entry */
  constructor(listing, entry) {
    this.files = listing.view.filter(shows);
    this.place = this.files.indexOf(entry);
    this.title = make("h2", { id: "dialog-title" });
    this.facts = make("p", { class: "facts" });
    this.stage = make("div", { class: "stage" });
    this.link = make("a", { class: "button" }, "Open");
    this.save = make("a", { class: "button", download: true }, "Download");
    this.previous = button("Previous", () => this.step(-1), { id: "previous" });
    this.next = button("Next", () => this.step(1), { id: "next" });
    const end = button("Close", close, { id: "close-preview", "data-first": true });
    const choices = make("div", { class: "buttons choices" }, this.previous, this.next, this.save, this.link, end);
    const all = make("div", { class: "preview", onkeydown: (event) => this.pressed(event) });
    all.append(make("header", {}, this.title, this.facts), this.stage, choices);
    this.show();
    open(all).then(() => listing.table.focus(listing.view.indexOf(this.files[this.place])));
  }

  /** @param {number} by */
  step(by) {
    if (this.files[this.place + by] === undefined) return;
    this.place += by;
    this.show();
  }

  show() {
    const entry = this.files[this.place];
    this.title.replaceChildren(named(entry.label));
    this.facts.textContent = `${size(entry.size)}, ${date(entry.mtime)} · ${this.place + 1} of ${this.files.length}`;
    const view = VIEWS[entry.kind](entry);
    view.addEventListener("error", () => this.fail(view));
    this.stage.replaceChildren(view);
    this.link.href = entry.href;
    this.save.href = entry.href;
    this.previous.disabled = this.place === 0;
    this.next.disabled = this.place === this.files.length - 1;
    // A button that can no longer be pressed would lose the focus to nothing.
    if (document.activeElement === document.body) byId("close-preview")?.focus();
  }

  /** @param {HTMLElement} view */
  fail(view) {
    if (this.stage.contains(view)) this.stage.replaceChildren(make("p", {}, "This browser cannot show it."));
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    // In a player these keys go back and forth in time.
    if (by === undefined || /** @type {Element} */ (event.target).closest("audio, video") !== null) return;
    event.preventDefault();
    this.step(by);
  }
}

/** The beginning of a text file. @param {Entry} entry @returns {HTMLElement} */
function text({ href, label, size: bytes }) {
  const view = make("pre", { tabindex: "0", role: "region", "aria-label": label });
  if (bytes === 0) view.textContent = "(empty)";
  else {
    read(href).then(
      (found) => view.append(found, bytes > TEXT ? "\n…" : ""),
      (error) => view.append(error.message),
    );
  }
  return view;
}

/** @param {string} href */
async function read(href) {
  const response = await answer(href, { headers: { Range: `bytes=0-${TEXT - 1}` } });
  // A character that the end cuts is left out.
  return new TextDecoder().decode(await response.arrayBuffer(), { stream: true });
}
