/**
 * The uploads of a page: what waits, runs, is paused, failed or is done. Nothing here knows of HTTP or of the
 * page; a runner begins and stops what the queue tells it to.
 *
 * @typedef {"waiting" | "running" | "paused" | "conflict" | "failed" | "unfinished"} Open
 * @typedef {Open | "done" | "skipped" | "gone"} State
 * @typedef {"ask" | "replace" | "rename" | "skip"} Policy what to do where a file of the name is there
 *
 * @typedef {object} Item
 * @property {number} id
 * @property {string} path the target, as text, below the page's directory
 * @property {File | null} file null for what only the server knows of
 * @property {number} size bytes
 * @property {number} sent bytes that the server has, or that are on their way
 * @property {State} state
 * @property {Policy} policy
 * @property {string} note what happened last, for people
 * @property {number} [mtime] of the file that the server had a part of, in ms since 1970
 * @property {string} url of the upload on the server; empty before it is made
 * @property {boolean} offline whether it failed for want of a connection
 *
 * @typedef {object} Runner
 * @property {(item: Item) => void} begin
 * @property {(item: Item) => void} stop
 * @property {(item: Item) => void} discard takes what the server has of it away
 */

/** Which state an action leads to; what is gone is forgotten, and what is not here does nothing. */
const STEPS = {
  finish: { running: "done" },
  fail: { running: "failed" },
  conflict: { running: "conflict" },
  pause: { waiting: "paused", running: "paused" },
  resume: { paused: "waiting" },
  retry: { failed: "waiting" },
  answer: { conflict: "waiting" },
  skip: { conflict: "skipped" },
  choose: { unfinished: "waiting" },
  cancel: { waiting: "gone", running: "gone", paused: "gone", conflict: "gone", failed: "gone" },
  // Not among all that are cancelled: another browser may be at it.
  erase: { unfinished: "gone" },
  clear: { done: "gone", skipped: "gone" },
};

export class Queue {
  /**
   * @param {Runner} runner
   * @param {() => void} [changed] called after each change
   * @param {number} [limit] how many run at a time
   */
  constructor(runner, changed = () => {}, limit = 3) {
    /** @type {Item[]} */
    this.items = [];
    this.runner = runner;
    this.changed = changed;
    this.limit = limit;
    this.made = 0;
  }

  /**
   * Take items in, each as far as it is known: `path`, `size`, and what else differs from a new one.
   * @param {Iterable<Partial<Item> & {path: string, size: number}>} wanted
   * @returns {Item[]}
   */
  add(wanted) {
    const items = Array.from(wanted, (item) => ({
      id: ++this.made,
      file: null,
      sent: 0,
      state: /** @type {State} */ ("waiting"),
      policy: /** @type {Policy} */ ("ask"),
      note: "",
      url: "",
      offline: false,
      ...item,
    }));
    for (const item of items) this.items.push(item);
    this.go();
    return items;
  }

  /**
   * Do something with an item; false where its state does not allow that, and then nothing happens.
   * @param {keyof typeof STEPS} action
   * @param {Item} item
   * @param {Partial<Item>} [news] what else is known of it now
   */
  act(action, item, news = {}) {
    if (!this.step(action, item, news)) return false;
    this.go();
    return true;
  }

  /**
   * Do something with every item whose state allows it; how many there were.
   * @param {keyof typeof STEPS} action
   */
  all(action) {
    const count = this.items.filter((item) => this.step(action, item, {})).length;
    this.go();
    return count;
  }

  /**
   * Whether an action would do anything.
   * @param {keyof typeof STEPS} action
   */
  able(action) {
    return this.items.some((item) => item.state in STEPS[action]);
  }

  /** @param {State} state */
  in(state) {
    return this.items.filter((item) => item.state === state);
  }

  /** What is on its way, or waits for its turn or for an answer. */
  get busy() {
    return this.items.some(({ state }) => state === "running" || state === "waiting" || state === "conflict");
  }

  /** All that is to be moved, what of it is, and how many files are done. Skipped ones do not count. */
  get totals() {
    const totals = { files: 0, done: 0, bytes: 0, sent: 0 };
    for (const item of this.items) {
      if (item.state === "skipped" || item.state === "unfinished") continue;
      totals.files += 1;
      totals.bytes += item.size;
      totals.sent += Math.min(item.sent, item.size);
      totals.done += Number(item.state === "done");
    }
    return totals;
  }

  /**
   * @param {keyof typeof STEPS} action
   * @param {Item} item
   * @param {Partial<Item>} news
   */
  step(action, item, news) {
    const from = item.state;
    const to = STEPS[action][from];
    if (to === undefined) return false;
    Object.assign(item, { note: "", offline: false }, news, { state: to });
    if (action === "cancel" || action === "erase") this.runner.discard(item);
    else if (from === "running" && to === "paused") this.runner.stop(item);
    return true;
  }

  /** Forget what has gone, and begin as many as may run. */
  go() {
    this.items = this.items.filter((item) => item.state !== "gone");
    const free = this.limit - this.in("running").length;
    for (const item of free > 0 ? this.in("waiting").slice(0, free) : []) {
      item.state = "running";
      this.runner.begin(item);
    }
    this.changed();
  }
}

/**
 * The upload on the server that a file goes on with: the same target, size and time, and free; null where
 * there is none.
 * @template {{path: string, size: number, mtime: number | null, url: string}} Kept
 * @param {readonly Kept[]} kept
 * @param {{isTarget: (path: string) => boolean, size: number, mtime: number}} file its time in ms
 * @param {(url: string) => boolean} isFree
 * @returns {Kept | null}
 */
export function matching(kept, { isTarget, size, mtime }, isFree) {
  const fits = (one) => one.size === size && one.mtime === mtime && isTarget(one.path) && isFree(one.url);
  return kept.find(fits) ?? null;
}
