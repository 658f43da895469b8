/** Uploads by tus: each goes on where the server says it was, after a pause, a break or a reload. */

import { claim, claimed } from "./claims.js";
import { isBeside, nameOf } from "./names.js";
import { matching } from "./queue.js";
import { answer, ask, sentenceOf, tellSessionOver } from "./talking.js";

/** @typedef {import("./queue.js").Item} Item */

/** Milliseconds before each try after the first, for ten minutes; one that got on begins them anew. */
const DELAYS = [0, 500, 1000, 2000, 3000, ...Array(120).fill(5000)];
/** Bytes of a file that goes with the request that makes its upload. */
const SMALL = 1024 * 1024;
/** What is said of an upload that another tab of this browser sends. */
const ELSEWHERE = "Another tab is at this upload.";
/** Statuses that pass by themselves: of a server that is busy, starts, or has what was sent at another offset. */
const PASSING = [408, 409, 423, 429, 460, 500, 502, 503, 504];

/**
 * @typedef {object} Place
 * @property {string} uploads the URL where uploads are made and listed
 * @property {string} path where they go, as text, with a slash at its end
 * @property {(path: string) => Promise<boolean>} taken whether there was something of that path below it when
 *   the uploads came
 * @property {(item: Item, isTarget: (path: string) => boolean) => Promise<boolean>} arrived whether a file like
 *   this has come there since
 *
 * @typedef {object} Run
 * @property {any} upload
 * @property {boolean} ended
 * @property {boolean} resumed whether it went on with what the server had
 * @property {boolean} mayAsk whether something of the name leads to a question rather than to an error
 * @property {number} unsure how often it was asked to be made without an answer
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
    /** @type {any[]} */
    this.kept = [];
  }

  /** The uploads that the server keeps for this directory, as `matching` wants them. */
  async look() {
    const found = await ask(this.place.uploads);
    this.kept = found.map((one) => ({ ...one, url: new URL(one.url, location.href).href }));
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
    const run = { upload: null, ended: false, resumed: false, mayAsk: asks(item), unsure: 0 };
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
    const mtime = item.file?.lastModified ?? item.mtime;
    const left = (error) => this.queue.add([{ ...item, mtime, state: "unfinished", note: error.message }]);
    this.forget(item).catch(left);
  }

  /**
   * Have the server forget what it has. Throws where it does not, or another tab is at it.
   * @param {Item} item
   */
  async forget(item) {
    if (item.url === "") return;
    if (!this.claims.has(item)) {
      const release = await claim(item.url);
      if (release === null) throw new Error(ELSEWHERE);
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
    const [tus] = await Promise.all([library(), this.find(item, run)]);
    if (item.url === "") await this.settle(item, run);
    if (run.ended) return;
    run.resumed = item.url !== "";
    run.upload = new tus.Upload(item.file, this.options(item, run));
    run.upload.start();
  }

  /**
   * End an item of which nothing is to be sent: it has come already, or must be asked about.
   * @param {Item} item @param {Run} run
   */
  async settle(item, run) {
    // That it is replaced twice is no harm.
    if (run.ended || item.policy === "replace") return;
    // Known before anything is sent: what comes later is told from it.
    const taken = await this.place.taken(item.path);
    if (run.unsure > 0 && (await this.place.arrived(item, targetOf(item.path, run, item.policy)))) {
      this.end(item, run, "finish", { sent: item.size });
    } else if (taken && run.mayAsk) this.end(item, run, "conflict");
  }

  /**
   * Make an upload once more after its answer was lost: it may have been begun, or be all there.
   * @param {Item} item @param {Run} run
   */
  async remake(item, run) {
    run.unsure += 1;
    await new Promise((resolve) => setTimeout(resolve, DELAYS[run.unsure]));
    if (run.ended) return;
    this.release(item);
    item.url = "";
    await this.look();
    await this.start(item, run);
  }

  /**
   * Find what the server has of an item, and claim it for this tab.
   * @param {Item} item @param {Run} run
   */
  async find(item, run) {
    if (this.claims.has(item)) return;
    const isTarget = targetOf(this.place.path + item.path, run, item.policy);
    const wanted = { isTarget, size: item.size, mtime: item.file?.lastModified ?? 0 };
    const taken = new Set(this.spent);
    const isFree = (url) => !taken.has(url) && !this.queue.items.some((other) => other.url === url);
    for (;;) {
      const url = item.url || matching(this.kept, wanted, isFree)?.url;
      if (url === undefined) return;
      const release = await claim(url);
      if (release !== null) {
        item.url = url;
        this.claims.set(item, release);
        return;
      }
      if (item.url !== "") throw new Error(ELSEWHERE);
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
    if (run.ended || !passes(error)) return false;
    item.note = statusOf(error) === 0 ? "The connection broke, trying again …" : "The server is busy, trying again …";
    this.progressed(item);
    // One that is not made yet is looked for first.
    return Boolean(run.upload.url);
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
    } else if (passes(error) && run.upload && !run.upload.url && run.unsure + 1 < DELAYS.length) {
      this.remake(item, run).catch((again) => this.fail(item, run, again));
    } else {
      this.end(item, run, "fail", { note: noteOf(error), offline: status === 0 });
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

/**
 * Which paths may be that of an item: also those beside it, where the server may have given it one.
 * @param {string} path
 * @param {Run} run
 * @param {import("./queue.js").Policy} policy
 * @returns {(path: string) => boolean}
 */
function targetOf(path, run, policy) {
  const isRenamed = run.unsure > 0 && policy === "rename";
  return (other) => (isRenamed ? isBeside(other, path) : other === path);
}

/** Have the server forget an upload; one that it does not know is forgotten. @param {string} url */
async function erase(url) {
  try {
    await answer(url, { method: "DELETE", headers: { Accept: "application/json", "Tus-Resumable": "1.0.0" } });
  } catch (error) {
    if (![404, 410].includes(statusOf(error))) throw error;
  }
}

/** @param {any} error @returns {number} the status that was answered, 0 for no answer, -1 where nothing was asked */
function statusOf(error) {
  if (error.originalRequest) return error.originalResponse?.getStatus() ?? 0;
  return error.status ?? -1;
}

/** Whether it may go better in a while. @param {any} error */
function passes(error) {
  const status = statusOf(error);
  return !isTaken(error) && (status === 0 || PASSING.includes(status));
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
