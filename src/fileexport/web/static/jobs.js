/** Archives that the server makes beside the entries: asked for, watched, cancelled. */

import { tell } from "./actions.js";
import { question, show } from "./asking.js";
import { button, byId, make, named, say, tool, write } from "./dom.js";
import { duration, rate, size } from "./formats.js";
import { JobNews } from "./job_news.js";
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
  const news = new JobNews();
  byId("download-tar").after(tool("archive", "Compress", () => tell(compress(listing, news)), "compress"));
  showRunning(listing, news).catch(() => {});
}

/**
 * Those that were asked for before the page was loaded.
 * @param {import("./listing.js").Listing} listing
 * @param {JobNews} news
 */
async function showRunning(listing, news) {
  const here = decodeName(byId("page").dataset.directory);
  for (const job of await ask(`${byId("page").dataset.jobs}?limit=20`)) {
    const name = nameOf(job.path);
    if (!ENDED.includes(job.state) && job.path === here + name) new Job(listing, news, name, job);
  }
}

/** @param {import("./listing.js").Listing} listing @param {JobNews} news */
async function compress(listing, news) {
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
  try {
    for (const { label, path } of paths) new Job(listing, news, label, await begin(here + path, format));
  } finally {
    // One that is small may have ended before its id was known here.
    news.look();
  }
}

/** @param {string} path @param {string} format @returns {Promise<any>} the job */
function begin(path, format) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ path, format });
  return ask(byId("page").dataset.jobs, { method: "POST", headers, body });
}

/** One job in the page, from its beginning to its end. */
class Job {
  /**
   * @param {import("./listing.js").Listing} listing
   * @param {JobNews} source
   * @param {string} label
   * @param {any} job
   */
  constructor(listing, source, label, job) {
    this.listing = listing;
    this.source = source;
    this.id = job.id;
    this.bar = make("progress", { "aria-label": `Compressing ${label}` });
    this.text = make("span", { class: "news" });
    this.cancel = button("Cancel", () => tell(this.stop()), { class: "button cancel" });
    this.row = make("li", {}, make("span", { class: "name" }, named(label)), this.bar, this.text, this.cancel);
    list().prepend(this.row);
    source.add(this);
    this.news(job);
  }

  async stop() {
    this.news(await ask(`${byId("page").dataset.jobs}/${this.id}`, { method: "DELETE" }));
  }

  /** Take what is known of the job now. What comes after its end is older. @param {any} job */
  news(job) {
    if (ENDED.includes(this.row.dataset.state)) return undefined;
    this.row.dataset.state = job.state;
    if (job.state === "done") return this.done(job);
    if (ENDED.includes(job.state)) return this.end(job.state === "failed" ? job.error : "Cancelled.");
    const { bytes = 0, bytes_total: total = null, rate: speed = 0, eta = null } = job.progress ?? {};
    if (total) Object.assign(this.bar, { max: total, value: bytes });
    const amount = total ? `${size(bytes)} of ${size(total)}` : "begins";
    const parts = [job.state === "queued" ? "waits for its turn" : amount];
    if (speed > 0) parts.push(rate(speed));
    if (eta !== null) parts.push(`${duration(eta)} left`);
    return this.say(parts.join(", "));
  }

  /** @param {string} sentence */
  say(sentence) {
    write(this.text, sentence);
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
    this.source.remove(this);
    this.bar.remove();
    this.cancel.replaceWith(button("Close", () => this.close(), { class: "button close" }));
    this.say(sentence);
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
