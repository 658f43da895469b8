/** Uploads by tus: each goes on where the server says it was, after a pause, a break or a reload. */

import { claim, claimed } from "./claims.js";
import { nameOf } from "./names.js";
import { matching } from "./queue.js";
import { ask, sentenceOf, tellSessionOver } from "./talking.js";

/** @typedef {import("./queue.js").Item} Item */

/** Milliseconds before each try after the first, for ten minutes; one that got on begins them anew. */
const DELAYS = [0, 500, 1000, 2000, 3000, ...Array(120).fill(5000)];
/** Bytes of a file that goes with the request that makes its upload. */
const SMALL = 1024 * 1024;
/** Statuses that pass by themselves: of a server that is busy, starts, or has what was sent at another offset. */
const PASSING = [408, 409, 423, 429, 460, 500, 502, 503, 504];

/**
 * @typedef {object} Place
 * @property {string} uploads the URL where uploads are made and listed
 * @property {string} path where they go, as text, with a slash at its end
 * @property {(path: string) => Promise<boolean>} taken whether there is something of that path below it
 *
 * @typedef {object} Run
 * @property {any} upload
 * @property {boolean} ended
 * @property {boolean} resumed whether it went on with what the server had
 * @property {boolean} mayAsk whether something of the name leads to a question rather than to an error
 */

export class Sender {
  /**
   * @param {Place} place
   * @param {import("./queue.js").Queue} queue
   * @param {(item: Item) => void} progressed
   */
  constructor(place, queue, progressed) {
    this.place = place;
    this.queue = queue;
    this.progressed = progressed;
    /** @type {Map<Item, Run>} */
    this.runs = new Map();
    /** @type {Map<Item, () => void>} */
    this.claims = new Map();
    /** @type {Set<string>} uploads that came to nothing: the name was taken meanwhile */
    this.spent = new Set();
    /** @type {Promise<any[]>} */
    this.kept = Promise.resolve([]);
  }

  /** The uploads that the server keeps for this directory and no tab is at, as `matching` wants them. */
  look() {
    this.kept = ask(this.place.uploads).then((found) =>
      found.map((one) => ({ ...one, url: new URL(one.url, location.href).href })),
    );
    return this.kept;
  }

  /** Those of them that nobody is at. */
  async left() {
    const kept = await this.look();
    const busy = await claimed(kept.map((one) => one.url));
    return kept.filter((one) => !busy.has(one.url));
  }

  /** @param {Item} item */
  begin(item) {
    const run = { upload: null, ended: false, resumed: false, mayAsk: asks(item) };
    this.runs.set(item, run);
    this.start(item, run).catch((error) => this.fail(item, run, error));
  }

  /** @param {Item} item */
  stop(item) {
    const run = this.runs.get(item);
    if (run === undefined) return;
    run.ended = true;
    this.runs.delete(item);
    run.upload?.abort();
  }

  /** @param {Item} item */
  discard(item) {
    this.stop(item);
    // What cannot be asked to go now goes when it expires.
    this.forget(item).catch(() => {});
  }

  /**
   * Have the server forget what it has, unless another tab is at it.
   * @param {Item} item
   */
  async forget(item) {
    if (item.url === "") return;
    if (!this.claims.has(item)) {
      const release = await claim(item.url);
      if (release === null) return;
      this.claims.set(item, release);
    }
    await erase(item.url).finally(() => this.release(item));
  }

  /** What was sent cannot become the file: the server may forget it. @param {Item} item */
  drop(item) {
    this.spent.add(item.url);
    if (item.url !== "") erase(item.url).catch(() => {});
    this.release(item);
    item.url = "";
    item.sent = 0;
  }

  /** @param {Item} item @param {Run} run */
  async start(item, run) {
    const [tus] = await Promise.all([library(), this.find(item)]);
    if (run.ended) return;
    if (item.url === "" && run.mayAsk && (await this.place.taken(item.path))) {
      if (!run.ended) this.end(item, run, "conflict");
      return;
    }
    if (run.ended) return;
    run.resumed = item.url !== "";
    run.upload = new tus.Upload(item.file, this.options(item, run));
    run.upload.start();
  }

  /**
   * Find what the server has of an item, and claim it for this tab.
   * @param {Item} item
   */
  async find(item) {
    if (this.claims.has(item)) return;
    const taken = new Set([...this.spent, ...this.queue.items.map((other) => other.url)]);
    for (;;) {
      const wanted = { path: this.place.path + item.path, size: item.size, mtime: item.file?.lastModified ?? 0 };
      const url = item.url || matching(await this.kept.catch(() => []), wanted, taken)?.url;
      if (url === undefined) return;
      const release = await claim(url);
      if (release !== null) {
        item.url = url;
        this.claims.set(item, release);
        return;
      }
      if (item.url !== "") throw new Error("Another tab is at this upload.");
      taken.add(url);
    }
  }

  /** @param {Item} item @param {Run} run */
  options(item, run) {
    const file = /** @type {File} */ (item.file);
    const metadata = { filename: nameOf(item.path), mtime: String(file.lastModified) };
    if (item.path.includes("/")) metadata.relativePath = item.path;
    if (file.type) metadata.filetype = file.type;
    return {
      // As text: a directory's name that is not UTF-8 would not come through URLSearchParams.
      endpoint: `${this.place.uploads}&conflict=${run.mayAsk ? "abort" : item.policy}`,
      uploadUrl: item.url || null,
      metadata,
      headers: { Accept: "application/json" },
      retryDelays: DELAYS,
      uploadDataDuringCreation: item.size <= SMALL,
      // The server lists what it keeps, for every tab and browser alike.
      storeFingerprintForResuming: false,
      onShouldRetry: (error) => this.again(item, run, error),
      onUploadUrlAvailable: () => this.made(item, run),
      onProgress: (sent) => this.got(item, run, sent),
      onSuccess: () => this.end(item, run, "finish", { sent: item.size }),
      onError: (error) => this.fail(item, run, error),
    };
  }

  /** @param {Item} item @param {Run} run */
  made(item, run) {
    if (run.ended || item.url === run.upload.url) return;
    this.release(item);
    item.url = run.upload.url;
    // What is small is done before it could be left, and thousands of claims would be many.
    if (item.size > SMALL) claim(item.url).then((release) => this.hold(item, release));
  }

  /** @param {Item} item @param {(() => void) | null} release */
  hold(item, release) {
    if (release === null) return;
    // It ended before the claim was granted.
    if (this.claims.has(item) || item.state === "done" || item.state === "gone") release();
    else this.claims.set(item, release);
  }

  /** @param {Item} item @param {Run} run @param {number} sent */
  got(item, run, sent) {
    if (run.ended) return;
    item.sent = sent;
    item.note = "";
    this.progressed(item);
  }

  /**
   * Whether to try again by itself; it is said meanwhile.
   * @param {Item} item @param {Run} run @param {any} error
   */
  again(item, run, error) {
    const status = statusOf(error);
    if (run.ended || isTaken(error) || !(status === 0 || PASSING.includes(status))) return false;
    item.note = status === 0 ? "The connection broke, trying again …" : "The server is busy, trying again …";
    this.progressed(item);
    return true;
  }

  /** @param {Item} item @param {Run} run @param {any} error */
  fail(item, run, error) {
    if (run.ended) return;
    const status = statusOf(error);
    if (status === 401) tellSessionOver();
    if (isTaken(error) && (run.mayAsk || run.resumed)) {
      this.drop(item);
      if (run.mayAsk) this.end(item, run, "conflict");
      // What was resumed had been made with another answer to that question.
      else this.begin(item);
    } else {
      this.end(item, run, "fail", { note: noteOf(error), offline: error.originalRequest != null && status === 0 });
    }
  }

  /** @param {Item} item @param {Run} run @param {"finish" | "fail" | "conflict"} how @param {Partial<Item>} [news] */
  end(item, run, how, news = {}) {
    if (run.ended) return;
    run.ended = true;
    this.runs.delete(item);
    if (how === "finish") this.release(item);
    this.queue.act(how, item, news);
  }

  /** @param {Item} item */
  release(item) {
    this.claims.get(item)?.();
    this.claims.delete(item);
  }
}

/** @param {Item} item */
function asks({ policy }) {
  return policy === "ask" || policy === "skip";
}

/** tus-js-client as it was published. It is big: it comes with the first upload. */
async function library() {
  await import("./tus.min.js");
  return globalThis.tus;
}

/** Have the server forget an upload. @param {string} url */
function erase(url) {
  return fetch(url, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0" } });
}

/** @param {any} error @returns {number} the status of the answer that failed; 0 where there was none */
function statusOf(error) {
  return error.originalResponse?.getStatus() ?? error.status ?? 0;
}

/** Whether a file of the name came meanwhile: not the 409 that says that an offset is another. @param {any} error */
function isTaken(error) {
  if (statusOf(error) !== 409 || !error.originalRequest) return false;
  return error.originalRequest.getMethod() === "POST" || !error.originalResponse.getHeader("Upload-Offset");
}

/** @param {any} error @returns {string} what went wrong, for people */
function noteOf(error) {
  const status = statusOf(error);
  if (error.originalResponse) return sentenceOf(error.originalResponse.getBody() ?? "", status);
  if (error.originalRequest) return "The server cannot be reached.";
  return error.message;
}
