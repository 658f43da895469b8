/** Archives that the server makes beside the entries: asked for, watched, cancelled. */

import { tell } from "./actions.js";
import { question, show } from "./asking.js";
import { button, byId, make, named, say, tool, write } from "./dom.js";
import { duration, rate, size } from "./formats.js";
import { decodeName, nameOf } from "./names.js";
import { ask } from "./talking.js";

const FORMS = ["tar.gz", "tar.zst", "zip"];
const ENDED = ["done", "failed", "cancelled"];

/**
 * Let selected entries be compressed. Nothing where the visitor may not.
 * @param {import("./listing.js").Listing} listing
 */
export function compressFrom(listing) {
  if (!byId("page").dataset.may.split(" ").includes("write") || !byId("download-tar")) return;
  byId("download-tar").after(tool("archive", "Compress", () => tell(compress(listing)), "compress"));
  showRunning(listing).catch(() => {});
}

/** Those that were asked for before the page was loaded. @param {import("./listing.js").Listing} listing */
async function showRunning(listing) {
  const here = decodeName(byId("page").dataset.directory);
  for (const job of await ask(`${byId("page").dataset.jobs}?limit=20`)) {
    const name = nameOf(job.path);
    if (!ENDED.includes(job.state) && job.path === here + name) new Job(listing, name, job);
  }
}

/** @param {import("./listing.js").Listing} listing */
async function compress(listing) {
  const chosen = listing.chosen;
  if (chosen.length === 0) return;
  const here = decodeName(byId("page").dataset.directory);
  const paths = chosen.map((entry) => ({ label: entry.label, path: decodeName(entry.name) }));
  if (here === null || paths.some(({ path }) => path === null)) {
    const sentence = "A name that is not UTF-8 cannot be compressed here: download it as zip or tar.gz.";
    await show("Compress", make("p", {}, sentence));
    return;
  }
  const what = chosen.length === 1 ? ["“", named(chosen[0].label), "”"] : [`each of ${chosen.length} entries`];
  const options = FORMS.map((value) => make("option", { value }, value));
  const answer = await question({
    title: "Compress on the server",
    body: [
      make("p", {}, "An archive of ", ...what, " is made beside it. An older one of its name is replaced."),
      make("label", {}, "Format ", make("select", { name: "format" }, ...options)),
    ],
    choices: [{ value: "compress", label: "Compress", style: "main" }],
  });
  if (answer === null) return;
  const format = String(answer.data.get("format"));
  for (const { label, path } of paths) await begin(listing, label, here + path, format);
}

/**
 * @param {import("./listing.js").Listing} listing
 * @param {string} label
 * @param {string} path
 * @param {string} format
 */
async function begin(listing, label, path, format) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ path, format });
  const job = await ask(byId("page").dataset.jobs, { method: "POST", headers, body });
  new Job(listing, label, job);
}

/** One job in the page, from its beginning to its end. */
class Job {
  /** @param {import("./listing.js").Listing} listing @param {string} label @param {any} job */
  constructor(listing, label, job) {
    this.listing = listing;
    this.url = `${byId("page").dataset.jobs}/${job.id}`;
    this.bar = make("progress", { "aria-label": `Compressing ${label}` });
    this.text = make("span", { class: "news" });
    this.cancel = button("Cancel", () => tell(ask(this.url, { method: "DELETE" })), { class: "button cancel" });
    this.row = make("li", {}, make("span", { class: "name" }, named(label)), this.bar, this.text, this.cancel);
    list().prepend(this.row);
    this.news(job);
    if (!ENDED.includes(job.state)) this.watch();
  }

  watch() {
    const events = new EventSource(`${this.url}/events`);
    this.events = events;
    const heard = (event) => this.news(JSON.parse(event.data));
    events.addEventListener("state", heard);
    events.addEventListener("progress", heard);
    // It ended before we listened (204), or the session did: the stream is closed for good. Else the
    // browser connects again by itself.
    events.addEventListener("error", () => {
      if (events.readyState !== EventSource.CLOSED) return;
      ask(this.url).then(
        (job) => this.news(job),
        (error) => write(this.text, error.message),
      );
    });
  }

  /** @param {any} job */
  news(job) {
    this.row.dataset.state = job.state;
    if (job.state === "done") return this.done(job);
    if (ENDED.includes(job.state)) return this.end(job.state === "failed" ? job.error : "Cancelled.");
    const { bytes = 0, bytes_total: total = null, rate: speed = 0, eta = null } = job.progress ?? {};
    if (total) Object.assign(this.bar, { max: total, value: bytes });
    const amount = total ? `${size(bytes)} of ${size(total)}` : "begins";
    const parts = [job.state === "queued" ? "waits for its turn" : amount];
    if (speed > 0) parts.push(rate(speed));
    if (eta !== null) parts.push(`${duration(eta)} left`);
    return write(this.text, parts.join(", "));
  }

  /** @param {any} job */
  done(job) {
    const { url, bytes } = job.result;
    const name = nameOf(job.target);
    const link = make("a", { href: url, download: true }, named(name));
    this.end("");
    this.text.replaceChildren("Done: ", link, bytes === undefined ? "" : `, ${size(bytes)}`);
    say("Compressed: ", named(name));
    this.listing.refresh().catch(() => {});
  }

  /** @param {string} sentence */
  end(sentence) {
    this.events?.close();
    this.bar.remove();
    this.cancel.replaceWith(button("Close", () => this.close(), { class: "button close" }));
    write(this.text, sentence);
  }

  close() {
    this.row.remove();
    const section = byId("jobs");
    section.hidden = section.querySelector("li") === null;
  }
}

function list() {
  let section = byId("jobs");
  if (!section) {
    const rows = make("ul", { tabindex: "0", "aria-label": "Archives" });
    section = make("section", { id: "jobs", "aria-label": "Archives" }, rows);
    byId("transfers").after(section);
  }
  section.hidden = false;
  return section.querySelector("ul");
}
