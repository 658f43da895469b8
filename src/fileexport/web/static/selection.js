/** Which entries are selected, by their names, as file managers do it. */

export class Selection {
  /** @param {() => void} [changed] called after each change */
  constructor(changed = () => {}) {
    /** @type {Set<string>} */
    this.names = new Set();
    /** Where a range begins; @type {string | null} */
    this.anchor = null;
    /** @type {Set<string>} what was selected before the range that is being drawn */
    this.before = new Set();
    this.changed = changed;
  }

  get size() {
    return this.names.size;
  }

  /** @param {string} name */
  has(name) {
    return this.names.has(name);
  }

  /**
   * Select this one alone.
   * @param {string} name
   */
  only(name) {
    this.replace([name]);
    this.from(name);
  }

  /**
   * Select it as well, or no longer.
   * @param {string} name
   */
  toggle(name) {
    if (!this.names.delete(name)) this.names.add(name);
    this.from(name);
    this.changed();
  }

  /**
   * Select all from the anchor to this one, in the order of `order`. What was selected when the anchor was
   * set stays; a range that was drawn from it before does not.
   * @param {string} name
   * @param {readonly string[]} order
   */
  extend(name, order) {
    const begin = this.anchor === null ? -1 : order.indexOf(this.anchor);
    const end = order.indexOf(name);
    if (begin < 0 || end < 0) return this.toggle(name);
    const range = order.slice(Math.min(begin, end), Math.max(begin, end) + 1);
    this.names = new Set([...this.before, ...range]);
    this.changed();
  }

  /**
   * Select these and no others.
   * @param {Iterable<string>} names
   */
  replace(names) {
    this.names = new Set(names);
    this.before = new Set();
    this.changed();
  }

  /**
   * Select all of these, or none of them. Others stay what they are.
   * @param {Iterable<string>} names
   * @param {boolean} chosen
   */
  all(names, chosen) {
    const these = new Set(names);
    this.before = new Set([...this.names].filter((name) => !these.has(name)));
    this.names = new Set(chosen ? [...this.before, ...these] : this.before);
    this.changed();
  }

  clear() {
    this.anchor = null;
    this.replace([]);
  }

  /**
   * Forget what is not there any more.
   * @param {ReadonlySet<string>} there
   */
  keep(there) {
    const kept = [...this.names].filter((name) => there.has(name));
    if (this.anchor !== null && !there.has(this.anchor)) this.anchor = null;
    if (kept.length !== this.names.size) this.replace(kept);
  }

  /** @param {string} name */
  from(name) {
    this.anchor = name;
    this.before = new Set(this.names);
    // A range that begins at what was just taken out takes it in again, but not for good.
    this.before.delete(name);
  }
}
