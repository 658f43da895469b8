/** The uploads of the page: what comes in, what became of what was left, and how far everything is. */

import { Conflicts } from "./conflicts.js";
import { byId, make, say } from "./dom.js";
import { Existing } from "./existing.js";
import { count, duration, number, rate, size } from "./formats.js";
import { Meter } from "./meter.js";
import { decodeName, encodePath, nameOf } from "./names.js";
import { Queue } from "./queue.js";
import { Sender } from "./sending.js";
import { ask, send } from "./talking.js";
import { TransferList } from "./transfer_list.js";

/** @typedef {import("./queue.js").Item} Item */

/** Milliseconds between two looks at how far everything is. */
const LOOK = 250;
/** Milliseconds after which the listing shows what has come, while more comes. */
const REFRESH = 2000;

export class Transfers {
  /** @param {import("./listing.js").Listing} listing */
  constructor(listing) {
    this.listing = listing;
    this.page = byId("page").dataset;
    this.meter = new Meter();
    this.existing = new Existing((directory) => this.read(directory));
    const place = {
      uploads: this.page.uploads,
      path: decodeName(this.page.directory) ?? this.page.directory,
      taken: (path) => this.existing.has(path),
      arrived: (item, isTarget) => this.arrived(item, isTarget),
    };
    const runner = {
      begin: (item) => this.sender.begin(item),
      stop: (item) => this.sender.stop(item),
      discard: (item) => this.sender.discard(item),
    };
    this.queue = new Queue(runner, () => this.changed());
    this.sender = new Sender(place, this.queue, () => this.look());
    this.conflicts = new Conflicts(this.queue);
    this.list = new TransferList(byId("transfers"), this);
    this.told = 0;
    this.shown = 0;
    this.refreshing = 0;
    this.pace = REFRESH;
    this.looking = 0;
    addEventListener("online", () => this.backOnline());
    addEventListener("pagehide", () => clearTimeout(this.looking));
    this.showLeft().catch(() => {});
  }

  /**
   * Take what was dropped or chosen. What is listed as left from before goes on; the rest is new.
   * @param {import("./drops.js").Found[]} found
   * @param {import("./queue.js").Policy} policy
   */
  async take(found, policy) {
    this.existing = new Existing((directory) => this.read(directory));
    await this.sender.look().catch(() => []);
    const left = this.queue.in("unfinished");
    const wanted = [];
    for (const { path, file } of found) {
      if (file === null) continue;
      const known = left.find((item) => item.path === path && difference(item, file) === null);
      if (known) this.queue.act("choose", known, { file });
      else wanted.push({ path, size: file.size, file, policy });
    }
    this.queue.add(wanted);
    await this.makeDirectories(found.filter(({ file }) => file === null).map(({ path }) => path.slice(0, -1)));
  }

  /** @param {string[]} paths */
  async makeDirectories(paths) {
    for (const path of paths) {
      if (!(await this.existing.has(path))) await send(byId("new-directory").action, [["name", path]]);
    }
    if (paths.length > 0) await this.listing.refresh();
  }

  /**
   * What is in a directory below this one, by its JSON.
   * @param {string} directory
   */
  async read(directory) {
    const entries = await this.entriesIn(directory);
    return new Map(entries.map(({ name, type }) => [decodeName(name) ?? name, type]));
  }

  /** @param {string} directory */
  entriesIn(directory) {
    return ask(`${this.page.prefix}/-/files${this.page.directory}${encodePath(directory)}?json=page`);
  }

  /**
   * Whether a file of this size and time is there now, at such a path, and was not when the uploads came.
   * @param {Item} item
   * @param {(path: string) => boolean} isTarget
   */
  async arrived({ path, size, file }, isTarget) {
    const directory = path.slice(0, path.lastIndexOf("/") + 1);
    const gone = (error) => (error.status === 404 ? [] : Promise.reject(error));
    for (const entry of await this.entriesIn(directory).catch(gone)) {
      const found = directory + (decodeName(entry.name) ?? "");
      const isLike = entry.size === size && Math.round(entry.mtime * 1000) === file?.lastModified;
      if (isLike && isTarget(found) && !(await this.existing.has(found))) return true;
    }
    return false;
  }

  /** Show the uploads that the server keeps and no tab is at. */
  async showLeft() {
    const here = this.sender.place.path;
    const left = await this.sender.left();
    const known = new Set(this.queue.items.map((item) => item.url));
    const mine = left.filter(({ url, path }) => !known.has(url) && path.startsWith(here));
    this.queue.add(
      mine.map(({ path, size, offset, url, mtime }) => ({
        path: path.slice(here.length),
        size,
        mtime,
        url,
        sent: offset,
        state: "unfinished",
        note: "Choose the same file again to go on.",
      })),
    );
  }

  /** Ask for the file of an upload that was left. @param {Item} item */
  chooseFor(item) {
    const field = make("input", { type: "file" });
    field.addEventListener("change", () => {
      const [file] = field.files;
      const other = difference(item, file);
      if (other === null) return this.queue.act("choose", item, { file });
      item.note = `This one has another ${other}: choose the file that was being sent.`;
      return this.look();
    });
    field.click();
  }

  /** What failed for want of a connection goes on. */
  backOnline() {
    for (const item of this.queue.items.filter(({ offline }) => offline)) this.queue.act("retry", item);
  }

  changed() {
    this.look();
    this.conflicts?.settle().catch((error) => say(error.message));
    const done = this.queue.in("done").length;
    if (done > this.shown) this.refreshSoon();
    this.shown = done;
    if (done > this.told && !this.queue.busy) this.tell(done);
    this.told = Math.min(this.told, done);
  }

  /** @param {number} done */
  tell(done) {
    const failed = this.queue.in("failed").length;
    say(`${count(done - this.told, "upload")} done${failed > 0 ? `, ${failed} failed` : ""}.`);
    this.told = done;
  }

  /** At once when all is done, and now and then until it is. @param {number} [wait] milliseconds */
  refreshSoon(wait = 0) {
    if (this.queue.busy && this.refreshing !== 0) return;
    clearTimeout(this.refreshing);
    this.refreshing = setTimeout(() => this.refresh(), this.queue.busy ? this.pace : wait);
  }

  async refresh() {
    this.refreshing = 0;
    const begun = performance.now();
    try {
      await this.listing.refresh();
      // A directory that takes long to list is not asked for all the time.
      this.pace = Math.max(REFRESH, 10 * (performance.now() - begun));
    } catch (error) {
      // A server that starts again just now is asked once more.
      if (/** @type {any} */ (error).status === 0) this.refreshSoon(REFRESH);
    }
  }

  /** Show how far everything is, a few times a second at most. */
  look() {
    if (this.looking !== 0) return;
    const show = () => {
      this.looking = 0;
      this.show();
    };
    this.looking = setTimeout(show, LOOK);
  }

  show() {
    const totals = this.queue.totals;
    if (this.queue.in("running").length === 0) this.meter.restart();
    else this.meter.note(performance.now() / 1000, totals.sent);
    this.list.show(totals, this.news(totals));
  }

  /** @param {import("./queue.js").Queue["totals"]} totals */
  news({ files, done, bytes, sent }) {
    if (files === 0) return "";
    const parts = [`${number(done)} of ${count(files, "file")}`, `${size(sent)} of ${size(bytes)}`];
    const left = this.meter.remaining(bytes - sent);
    if (left !== null && sent < bytes) parts.push(rate(this.meter.rate), `${duration(left)} left`);
    return parts.join(", ");
  }
}

/**
 * What tells a file from the one that was being sent, or null: then they are the same.
 * @param {Item} item
 * @param {File} file
 */
function difference(item, file) {
  if (nameOf(item.path) !== file.name) return "name";
  if (item.size !== file.size) return "size";
  return item.mtime === file.lastModified ? null : "time";
}
