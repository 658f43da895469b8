/** The news of all jobs that the page shows, over one connection: a browser has six for all tabs of a server. */

import { byId } from "./dom.js";
import { ask } from "./talking.js";

/** Milliseconds before a stream that was refused is asked for again. */
const AGAIN = 5000;

/**
 * What shows a job: it takes the job as it is now, or why that is not known.
 * @typedef {{id: string, news: (job: any) => void, say: (sentence: string) => void}} Shown
 */

export class JobNews {
  constructor() {
    const { prefix, jobs } = byId("page").dataset;
    this.url = jobs;
    this.all = `${prefix}/-/events`;
    /** @type {Map<string, Shown>} those that have not ended, by their ids */
    this.running = new Map();
    /** @type {EventSource | null} */
    this.stream = null;
    this.timer = 0;
    addEventListener("visibilitychange", () => this.follow());
  }

  /** @param {Shown} shown */
  add(shown) {
    this.running.set(shown.id, shown);
    this.follow();
  }

  /** @param {Shown} shown */
  remove(shown) {
    this.running.delete(shown.id);
    this.follow();
  }

  /** Listen while there is something to hear, and somebody looks: a page that is not seen needs no news. */
  follow() {
    if (this.running.size === 0 || document.visibilityState !== "visible") return this.close();
    if (this.stream !== null) return undefined;
    const stream = new EventSource(this.all);
    this.stream = stream;
    const heard = (event) => this.heard(JSON.parse(event.data));
    stream.addEventListener("state", heard);
    stream.addEventListener("progress", heard);
    // What happened before this moment is not told.
    stream.addEventListener("open", () => this.look());
    stream.addEventListener("error", () => {
      // Else the browser connects again by itself.
      if (this.stream === stream && stream.readyState === EventSource.CLOSED) this.refused();
    });
    return undefined;
  }

  /** There are too many streams, or the session is over: then whoever comes back to the page is heard again. */
  async refused() {
    this.close();
    if (await this.look()) this.timer = setTimeout(() => this.follow(), AGAIN);
  }

  close() {
    clearTimeout(this.timer);
    this.stream?.close();
    this.stream = null;
  }

  /** @param {any} job */
  heard(job) {
    this.running.get(job.id)?.news(job);
  }

  /** Ask how all are. @returns {Promise<boolean>} whether the server still knows who this is */
  async look() {
    let known = true;
    for (const shown of [...this.running.values()]) {
      try {
        shown.news(await ask(`${this.url}/${shown.id}`));
      } catch (error) {
        known &&= error.status !== 401;
        // What ended long ago is forgotten.
        if (error.status === 404) shown.news({ state: "failed", error: error.message });
        else shown.say(error.message);
      }
    }
    return known;
  }
}
