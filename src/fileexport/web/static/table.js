/** The rows of the listing: written where they are seen, however many there are. */

import { byId, inFrame, named, write } from "./dom.js";
import { date, exactDate, exactSize, machineDate, size } from "./formats.js";
import { scrollTo, windowOf } from "./rows_window.js";

/** @typedef {import("./ordering.js").Entry} Entry */

/** Rows that are all written, so that the browser's own search finds them. */
const ALL_WRITTEN = 300;
/** Rows above and below the view. */
const MARGIN = 20;

export class Table {
  /** @param {import("./selection.js").Selection} selection */
  constructor(selection) {
    this.table = byId("listing");
    this.body = this.table.tBodies[0];
    this.template = byId("row").content.querySelector("tr");
    this.selection = selection;
    /** @type {readonly Entry[]} */
    this.entries = [];
    /** @type {Map<string, number>} */
    this.places = new Map();
    /** @type {Map<string, HTMLTableRowElement>} the rows that are written, by name */
    this.rows = new Map();
    this.height = 0;
    this.above = this.spacer();
    this.below = this.spacer();
    this.body.before(this.above);
    this.body.after(this.below);
    for (const row of this.body.rows) this.rows.set(row.dataset.name, row);
    const draw = inFrame(() => this.draw());
    addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", () => this.measure());
  }

  /** Whether only a part of the rows is written. */
  get windowed() {
    return this.entries.length > ALL_WRITTEN;
  }

  /**
   * Show these entries. The rows of entries that were shown before stay what they are.
   * @param {readonly Entry[]} entries
   */
  show(entries) {
    this.entries = entries;
    this.places = new Map(entries.map((entry, place) => [entry.name, place]));
    this.table.classList.toggle("one-line", this.windowed);
    if (this.windowed) this.table.setAttribute("aria-rowcount", String(entries.length + 1));
    else this.table.removeAttribute("aria-rowcount");
    this.fill();
    this.measure();
  }

  /**
   * Do something that changes which rows there are; what is seen of a long table stays where it is.
   * @param {() => void} change
   */
  hold(change) {
    const { height, top } = this.view();
    const before = top > 0 && height > 0 && this.windowed ? Math.ceil(top / height) : -1;
    const name = this.entries[before]?.name;
    change();
    const after = name === undefined ? undefined : this.places.get(name);
    if (after !== undefined && after !== before) {
      scrollBy({ top: (after - before) * this.height, behavior: "instant" });
      this.draw();
    }
  }

  /** How high a row is may change with the width of the window, and with its font. */
  measure() {
    this.height = this.body.rows[0]?.getBoundingClientRect().height ?? 0;
    this.draw();
  }

  /** Write the rows that are seen now. */
  draw() {
    if (this.windowed) this.fill();
  }

  fill() {
    const { first, end } = this.range();
    const wanted = this.entries.slice(first, end);
    const names = new Set(wanted.map((entry) => entry.name));
    for (const [name, row] of this.rows) {
      if (names.has(name)) continue;
      row.remove();
      this.rows.delete(name);
    }
    let next = this.body.rows[0] ?? null;
    wanted.forEach((entry, index) => {
      const row = this.row(entry, first + index + 2);
      if (row === next) next = row.nextElementSibling;
      else this.body.insertBefore(row, next);
    });
    this.stretch(this.above, first * this.height);
    this.stretch(this.below, (this.entries.length - end) * this.height);
  }

  range() {
    const count = this.entries.length;
    if (!this.windowed) return { first: 0, end: count };
    return windowOf({ count, ...this.view(), margin: MARGIN });
  }

  view() {
    const begin = this.above.hidden ? this.body : this.above;
    return { height: this.height, top: -begin.getBoundingClientRect().top, view: innerHeight };
  }

  /** @param {Entry} entry @param {number} index its place among all rows, counted from the head's 1 */
  row(entry, index) {
    let row = this.rows.get(entry.name);
    if (row === undefined) {
      row = /** @type {HTMLTableRowElement} */ (this.template.cloneNode(true));
      this.rows.set(entry.name, row);
    }
    // What the server has written has no `stamp`: its times are not the reader's yet.
    const stamp = `${entry.type} ${entry.size} ${entry.mtime} ${entry.href}`;
    if (row.dataset.stamp !== stamp) fillRow(row, entry);
    row.dataset.stamp = stamp;
    if (this.windowed) row.setAttribute("aria-rowindex", String(index));
    else row.removeAttribute("aria-rowindex");
    this.mark(row);
    return row;
  }

  /** The names whose boxes are ticked. */
  get ticked() {
    return Array.from(this.body.querySelectorAll("input:checked"), (box) => box.value);
  }

  /** Show what is selected. */
  markAll() {
    for (const row of this.body.rows) this.mark(row);
  }

  /** @param {HTMLTableRowElement} row */
  mark(row) {
    const chosen = this.selection.has(row.dataset.name ?? "");
    row.classList.toggle("selected", chosen);
    const box = row.querySelector("input");
    if (box !== null) box.checked = chosen;
  }

  /**
   * Bring an entry into view and give its link, or else its checkbox, the focus.
   * @param {number} place
   */
  focus(place) {
    const entry = this.entries[place];
    if (entry === undefined) return;
    if (this.windowed) {
      const { height, top, view } = this.view();
      const head = this.table.tHead.getBoundingClientRect().height;
      const by = scrollTo({ row: place, height, top: top + head, view: view - 2 * head });
      scrollBy({ top: by, behavior: "instant" });
      this.fill();
    }
    const row = this.rows.get(entry.name);
    const target = row?.querySelector("a") ?? row?.querySelector("input");
    target?.focus({ preventScroll: this.windowed });
  }

  /**
   * The place of the entry that something in the page belongs to; -1 for none.
   * @param {EventTarget | null} target
   */
  placeOf(target) {
    const row = target instanceof Element ? target.closest("tr[data-name]") : null;
    const name = row instanceof HTMLElement ? row.dataset.name : undefined;
    return name === undefined ? -1 : (this.places.get(name) ?? -1);
  }

  spacer() {
    const body = document.createElement("tbody");
    body.className = "spacer";
    body.setAttribute("aria-hidden", "true");
    body.hidden = true;
    const cell = body.insertRow().insertCell();
    cell.colSpan = this.table.tHead.rows[0].cells.length;
    return body;
  }

  /** @param {HTMLTableSectionElement} spacer @param {number} pixels */
  stretch(spacer, pixels) {
    spacer.hidden = pixels <= 0;
    spacer.rows[0].cells[0].style.height = `${pixels}px`;
  }
}

/**
 * Write an entry into a row of the page's own making.
 * @param {HTMLTableRowElement} row
 * @param {Entry} entry
 */
function fillRow(row, entry) {
  const { name, label, href, type, kind } = entry;
  Object.assign(row.dataset, { name, type, kind, size: entry.size, mtime: entry.mtime });
  const box = row.querySelector("input");
  if (box !== null) {
    box.value = name;
    box.setAttribute("aria-label", `Select ${label}`);
  }
  fillName(row.querySelector(".name"), label, href);
  const bytes = row.querySelector(".size");
  if (bytes !== null && type === "file") {
    write(bytes, size(entry.size));
    bytes.setAttribute("title", exactSize(entry.size));
  } else if (bytes !== null) {
    write(bytes, { directory: "–", link: "link" }[type] ?? "special");
    bytes.removeAttribute("title");
  }
  const time = document.createElement("time");
  time.dateTime = machineDate(entry.mtime);
  time.title = exactDate(entry.mtime);
  time.textContent = date(entry.mtime);
  row.querySelector(".date")?.replaceChildren(time.title === "" ? "–" : time);
}

/** @param {Element | null} cell @param {string} label @param {string} href */
function fillName(cell, label, href) {
  const icon = cell?.querySelector(".icon") ?? "";
  const text = named(label);
  text.title = label;
  if (href === "") return cell?.replaceChildren(icon, text);
  const link = cell?.querySelector("a") ?? document.createElement("a");
  link.href = href;
  link.replaceChildren(text);
  return cell?.replaceChildren(icon, link);
}
