/** Links that let others read a file or a directory for a while. */

import { question, show } from "./asking.js";
import { tell } from "./actions.js";
import { button, byId, make, named, tool } from "./dom.js";
import { exactDate } from "./formats.js";
import { send } from "./talking.js";

/**
 * Let the directory and a selected entry be shared. Nothing where the visitor may not.
 * @param {import("./listing.js").Listing} listing
 */
export function shareFrom(listing) {
  const form = byId("share-directory");
  if (!form) return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = new FormData(form);
    form.closest("details")?.removeAttribute("open");
    tell(share(String(data.get("path")), String(data.get("seconds")), "this directory"));
  });
  byId("download-tar")?.after(tool("share", "Share", () => tell(shareEntry(listing)), "share"));
}

/** @param {import("./listing.js").Listing} listing */
async function shareEntry(listing) {
  const [entry] = listing.chosen;
  if (listing.selection.size !== 1) return show("Share", make("p", {}, "Select one entry to share."));
  const spans = byId("share-directory").elements.namedItem("seconds").cloneNode(true);
  const answer = await question({
    title: "Share",
    body: [
      make("p", {}, "Whoever has the link can read “", named(entry.label), "”."),
      make("label", {}, "For ", spans),
    ],
    choices: [{ value: "share", label: "Make a link", style: "main" }],
  });
  if (answer === null) return undefined;
  const path = byId("page").dataset.directory + entry.name;
  return share(path, String(answer.data.get("seconds")), entry.label);
}

/**
 * @param {string} path percent-encoded
 * @param {string} seconds
 * @param {string} label
 */
async function share(path, seconds, label) {
  const made = await send(byId("page").dataset.shares, Object.entries({ path, seconds }));
  const url = new URL(made.url, location.href).href;
  const field = make("input", { type: "url", readonly: true, value: url, "aria-label": "Link", id: "share-link" });
  field.addEventListener("focus", () => field.select());
  const done = make("span", { role: "status" });
  await show(
    "The link is made",
    make("p", {}, "For ", named(label), ", until ", exactDate(made.expires).replace(/:\d\d /, " "), "."),
    make("p", { class: "row" }, field, button("Copy", () => copy(field, done), { id: "copy-link" })),
    done,
    make("p", {}, make("a", { href: byId("page").dataset.shares }, "All shared links"), ": there it can be revoked."),
  );
}

/** @param {HTMLInputElement} field @param {HTMLElement} done */
async function copy(field, done) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    done.textContent = "Copied.";
  } catch {
    // There is no clipboard without TLS, or no leave to use it.
    done.textContent = document.execCommand("copy") ? "Copied." : "Press Ctrl+C to copy it.";
  }
}
