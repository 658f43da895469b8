/** The section of the page that lists the uploads. */

import { button, make, named, write } from "./dom.js";
import { size } from "./formats.js";
import { visible } from "./names.js";

/** @typedef {import("./queue.js").Item} Item */

/** Rows for what is still to do, and for what is done: thousands would be more than anybody reads. */
const SHOWN = 60;
const SHOWN_DONE = 10;

/** What is said of a state that has nothing else to say. */
const SAYS = { waiting: "Waits", conflict: "There is one already", done: "Done", paused: "Paused" };

/** What cancels an upload of this page. @type {[string, string, string]} */
const CANCEL = ["cancel", "Cancel", "cancel"];

/** Which buttons a state has: class, label, action. @type {Record<string, [string, string, string][]>} */
const BUTTONS = {
  waiting: [["pause", "Pause", "pause"], CANCEL],
  running: [["pause", "Pause", "pause"], CANCEL],
  paused: [["resume", "Resume", "resume"], CANCEL],
  conflict: [CANCEL],
  failed: [["retry", "Try again", "retry"], CANCEL],
  unfinished: [
    ["choose", "Choose the file", ""],
    ["cancel", "Cancel", "erase"],
  ],
};

/** The buttons for all, with the action of each. @type {[string, string, any][]} */
const FOR_ALL = [
  ["pause-all", "Pause all", "pause"],
  ["resume-all", "Resume all", "resume"],
  ["retry-all", "Try all again", "retry"],
  ["cancel-all", "Cancel all", "cancel"],
  ["clear-done", "Clear", "clear"],
];

export class TransferList {
  /** @param {HTMLElement} section @param {import("./transfers.js").Transfers} transfers */
  constructor(section, transfers) {
    this.section = section;
    this.transfers = transfers;
    /** @type {Map<Item, Row>} */
    this.rows = new Map();
    this.total = make("p", { id: "transfers-total" });
    this.bar = make("progress", { "aria-label": "All uploads", max: "1", value: "0" });
    this.list = make("ul", { tabindex: "0", "aria-label": "Uploads" });
    this.more = make("p", { class: "more" });
    this.buttons = FOR_ALL.map(([id, label, action]) => [action, button(label, () => this.queue.all(action), { id })]);
    const all = make("div", { class: "buttons all" }, ...this.buttons.map(([, press]) => press));
    const header = make("header", {}, make("h2", {}, "Uploads"), this.total, all);
    section.replaceChildren(header, this.bar, this.list, this.more);
  }

  get queue() {
    return this.transfers.queue;
  }

  /**
   * Show the queue as it is now.
   * @param {import("./queue.js").Queue["totals"]} totals
   * @param {string} news
   */
  show(totals, news) {
    const items = this.queue.items;
    this.section.hidden = items.length === 0;
    write(this.total, news);
    this.bar.hidden = totals.bytes === 0;
    this.bar.value = totals.bytes === 0 ? 0 : totals.sent / totals.bytes;
    for (const [action, press] of this.buttons) press.hidden = !this.queue.able(action);
    this.fill(items);
  }

  /** What is to do comes first, as it came; then the last of what is done. @param {Item[]} items */
  fill(items) {
    const isOver = ({ state }) => state === "done" || state === "skipped";
    const open = items.filter((item) => !isOver(item));
    const over = items.filter(isOver).reverse();
    const shown = [...open.slice(0, SHOWN), ...over.slice(0, SHOWN_DONE)];
    write(this.more, items.length > shown.length ? `and ${items.length - shown.length} more` : "");
    const wanted = new Set(shown);
    for (const [item, row] of this.rows) {
      if (wanted.has(item)) continue;
      row.element.remove();
      this.rows.delete(item);
    }
    let next = this.list.firstElementChild;
    for (const item of shown) {
      const row = this.row(item);
      row.show();
      if (row.element === next) next = next.nextElementSibling;
      else this.list.insertBefore(row.element, next);
    }
  }

  /** @param {Item} item */
  row(item) {
    const known = this.rows.get(item);
    if (known) return known;
    const row = new Row(item, this.transfers);
    this.rows.set(item, row);
    return row;
  }
}

/** One upload. */
class Row {
  /** @param {Item} item @param {import("./transfers.js").Transfers} transfers */
  constructor(item, transfers) {
    this.item = item;
    this.transfers = transfers;
    this.bar = make("progress", { max: String(Math.max(item.size, 1)), "aria-label": visible(item.path) });
    this.text = make("span", { class: "news" });
    this.presses = make("span", { class: "presses" });
    this.element = make("li", {}, make("span", { class: "name" }, named(item.path)), this.bar, this.text, this.presses);
  }

  show() {
    const { state, sent, size: bytes } = this.item;
    this.bar.value = state === "done" ? Math.max(bytes, 1) : sent;
    this.bar.hidden = state === "skipped";
    write(this.text, this.news());
    if (this.element.dataset.state === state) return;
    // The buttons of a row stay while its state does: one that is pressed must not go from under the finger.
    const focused = this.presses.contains(document.activeElement);
    this.element.dataset.state = state;
    this.presses.replaceChildren(...this.buttons());
    if (focused) this.presses.querySelector("button")?.focus();
  }

  news() {
    const { state, sent, size: bytes, note } = this.item;
    if (state === "done") return size(bytes);
    const amount = sent > 0 ? `${size(sent)} of ${size(bytes)}` : size(bytes);
    const says = note || SAYS[state] || "";
    return says === "" ? amount : `${amount}. ${says}`;
  }

  buttons() {
    const { item, transfers } = this;
    const { queue } = transfers;
    const press = ([name, label, action]) =>
      button(label, () => (action === "" ? transfers.chooseFor(item) : queue.act(action, item)), {
        class: `button ${name}`,
        "aria-label": `${label}: ${visible(item.path)}`,
      });
    return (BUTTONS[item.state] ?? []).map(press);
  }
}
