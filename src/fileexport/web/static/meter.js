/** How fast something gets on, and how long it will take. */

/** Seconds that a rate looks back. */
const LOOKS_BACK = 6;

export class Meter {
  constructor() {
    /** @type {{at: number, done: number}[]} */
    this.samples = [];
  }

  /**
   * Note how much was done by now. Less than before means that some was lost: the rate begins anew.
   * @param {number} at seconds
   * @param {number} done bytes
   */
  note(at, done) {
    const last = this.samples.at(-1);
    if (last !== undefined && done < last.done) this.samples = [];
    this.samples.push({ at, done });
    while (this.samples.length > 2 && this.samples[1].at < at - LOOKS_BACK) this.samples.shift();
  }

  /** Bytes a second; 0 while nothing is known. */
  get rate() {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (first === undefined || last === undefined || last.at <= first.at) return 0;
    return (last.done - first.done) / (last.at - first.at);
  }

  /**
   * Seconds until `left` bytes are done, or null while that cannot be told.
   * @param {number} left
   * @returns {number | null}
   */
  remaining(left) {
    return this.rate > 0 ? left / this.rate : null;
  }

  /** Begin anew, after a pause say. */
  restart() {
    this.samples = [];
  }
}
