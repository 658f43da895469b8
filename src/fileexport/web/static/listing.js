/** The directory of the page: its entries, which of them are seen, and its address. */

import { byId, inFrame, make, say, write } from "./dom.js";
import { count, number, size } from "./formats.js";
import { arrange } from "./ordering.js";
import { Selection } from "./selection.js";
import { Table } from "./table.js";
import { ask } from "./talking.js";

/** @typedef {import("./ordering.js").Entry} Entry */

/** Entries of a directory that is asked for again whenever somebody comes back to the page. */
const OFTEN = 5000;

export class Listing {
  constructor() {
    const { sort, order, filter, total } = byId("page").dataset;
    /** @type {import("./ordering.js").Wish} */
    this.wish = { sort, order, filter: byId("filter").elements.filter.value };
    this.selection = new Selection(() => this.selected());
    this.table = new Table(this.selection);
    /** @type {Entry[]} in natural order; until they are `complete` those that the server has written */
    this.entries = entriesOf(this.table.body);
    this.complete = sort === "name" && order === "asc" && this.entries.length === Number(total);
    /** @type {readonly Entry[]} what is seen, in its order */
    this.view = this.entries;
    this.asked = 0;
    /** Where the keyboard is among the rows. */
    this.place = -1;
    this.timer = 0;
    this.zone();
    this.heads();
    this.filter();
    this.begin();
    addEventListener("visibilitychange", () => this.comeBack());
  }

  /** What was ticked before the script came is selected, and can be acted on while more is asked for. */
  begin() {
    // Otherwise a reload would tick rows by their places, whatever stands there then.
    byId("entries").autocomplete = "off";
    this.selection.replace(this.table.ticked);
    if (this.complete) return this.arrange();
    this.table.show(this.view);
    return this.refresh().catch((error) => say(error.message));
  }

  /** The names that are seen, in their order. */
  get names() {
    return this.view.map((entry) => entry.name);
  }

  /** The selected entries that are there, in the order that is seen; also those that the filter hides. */
  get chosen() {
    const seen = this.view.filter((entry) => this.selection.has(entry.name));
    if (seen.length === this.selection.size) return seen;
    return this.entries.filter((entry) => this.selection.has(entry.name));
  }

  /** Ask the server again. What is selected, seen and filtered stays. */
  async refresh() {
    const mine = ++this.asked;
    const entries = await ask(`${location.pathname}?json=page`);
    // A later question has a newer answer.
    if (mine === this.asked) this.table.hold(() => this.take(entries));
  }

  /** @param {Entry[]} entries */
  take(entries) {
    this.entries = entries;
    this.complete = true;
    this.selection.keep(new Set(entries.map((entry) => entry.name)));
    byId("pager")?.remove();
    this.arrange();
  }

  /** Show what the filter lets through, in its order; as soon as there is all to choose from. */
  arrange() {
    if (!this.complete) return;
    this.view = arrange(this.entries, this.wish);
    this.table.show(this.view);
    this.summary();
    this.selected();
  }

  summary() {
    const { entries, view } = this;
    const bytes = view.reduce((sum, entry) => sum + (entry.type === "file" ? entry.size : 0), 0);
    const all = count(entries.length, "entry", "entries");
    const seen = view.length === entries.length ? all : `${number(view.length)} of ${all}`;
    const summary = byId("summary");
    if (summary) write(summary, entries.length === 0 ? "" : `${seen}, ${size(bytes)} in files`);
    byId("entries").hidden = view.length === 0;
    let nothing = byId("empty");
    if (!nothing) {
      nothing = make("p", { id: "empty", class: "empty" });
      byId("entries").before(nothing);
    }
    nothing.hidden = view.length > 0;
    write(nothing, entries.length === 0 ? "This directory is empty." : "No entry has this in its name.");
  }

  /** Show what is selected, and how much of it. */
  selected() {
    this.table.markAll();
    const chosen = this.selection.size;
    byId("entries").toggleAttribute("data-selected", chosen > 0);
    const output = byId("selected");
    if (output) write(output, chosen === 0 ? "" : `${number(chosen)} selected`);
    const box = byId("select-all");
    if (!box) return;
    box.hidden = false;
    const seen = this.view.filter((entry) => this.selection.has(entry.name)).length;
    box.checked = seen > 0 && seen === this.view.length;
    box.indeterminate = seen > 0 && !box.checked;
  }

  /** The server's times are UTC, the page's are the reader's. */
  zone() {
    for (const note of document.querySelectorAll("#listing .zone")) note.remove();
  }

  heads() {
    for (const link of document.querySelectorAll("#listing thead a[data-sort]")) {
      link.addEventListener("click", (event) => {
        const { ctrlKey, metaKey } = /** @type {MouseEvent} */ (event);
        // Some of a directory cannot be sorted here, but where the link leads.
        if (ctrlKey || metaKey || !this.complete) return;
        event.preventDefault();
        this.sort(/** @type {HTMLElement} */ (link).dataset.sort);
      });
    }
  }

  /** @param {any} by the column */
  sort(by) {
    const first = by === "name" ? "asc" : "desc";
    const order = this.wish.sort !== by ? first : this.wish.order === "asc" ? "desc" : "asc";
    this.wish = { ...this.wish, sort: by, order };
    for (const link of document.querySelectorAll("#listing thead a[data-sort]")) {
      const head = /** @type {HTMLElement} */ (link.closest("th"));
      if (/** @type {HTMLElement} */ (link).dataset.sort !== by) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", order === "asc" ? "ascending" : "descending");
    }
    this.arrange();
    this.address();
  }

  filter() {
    const form = byId("filter");
    const apply = inFrame(() => {
      this.wish = { ...this.wish, filter: form.elements.filter.value };
      this.arrange();
      this.address();
    });
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => {
      if (!this.complete) return;
      event.preventDefault();
      apply();
      this.table.focus(0);
    });
    // The filter works at once: its button is for those who have no script.
    form.querySelector("button")?.remove();
    // Heard once the typing ends, and its last letter is filtered by.
    form.addEventListener("change", inFrame(() => say(byId("summary")?.textContent ?? "")));
  }

  /** A reload, and a bookmark, show the same. Not for each letter: browsers bound how often. */
  address() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.writeAddress(), 300);
  }

  writeAddress() {
    const url = new URL(location.href);
    const { sort, order, filter } = this.wish;
    for (const [name, value, usual] of [
      ["sort", sort, "name"],
      ["order", order, "asc"],
      ["filter", filter, ""],
      ["page", "", ""],
    ]) {
      if (value === usual) url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    history.replaceState(null, "", url);
  }

  comeBack() {
    if (document.visibilityState === "visible" && (this.entries.length <= OFTEN || !this.complete)) {
      this.refresh().catch(() => {});
    }
  }
}

/**
 * The entries as the server has written them into the table.
 * @param {HTMLTableSectionElement} body
 * @returns {Entry[]}
 */
function entriesOf(body) {
  return Array.from(body.rows, (row) => {
    const { name, type, kind, size, mtime } = row.dataset;
    const link = row.querySelector(".name a");
    const label = row.querySelector(".name bdi")?.textContent ?? "";
    const href = link?.getAttribute("href") ?? "";
    return /** @type {Entry} */ ({ name, label, href, type, kind, size: Number(size), mtime: Number(mtime) });
  });
}
