/** Where files come into the page: dropped anywhere, or chosen in the form for uploads. */

import { tell } from "./actions.js";
import { button, byId, make } from "./dom.js";
import { chosen, dropped } from "./drops.js";

/** @param {import("./transfers.js").Transfers} transfers */
export function takeFrom(transfers) {
  const form = byId("upload");
  const take = (found) => {
    const conflict = form.elements.namedItem("conflict").value;
    tell(transfers.take(found, conflict === "abort" ? "ask" : conflict));
  };
  chooseIn(form, take);
  dropOn(take);
}

/**
 * With a script what was chosen is sent at once, and a taken name is asked about.
 * @param {HTMLFormElement} form
 * @param {(found: import("./drops.js").Found[]) => void} take
 */
function chooseIn(form, take) {
  const taken = (event) => {
    const field = event.target;
    take(chosen(field.files));
    field.value = "";
    form.closest("details")?.removeAttribute("open");
  };
  const field = form.querySelector("input[type=file]");
  field?.addEventListener("change", taken);
  const folder = make("input", { type: "file", webkitdirectory: true, hidden: true, onchange: taken });
  form.querySelector("button[type=submit]")?.remove();
  form.append(folder, button("Choose a directory", () => folder.click(), { id: "choose-folder" }));
  form.addEventListener("submit", (event) => event.preventDefault());
  const keep = form.querySelector("option[value=abort]");
  if (keep) keep.textContent = "Ask";
}

/** @param {(found: import("./drops.js").Found[]) => void} take */
function dropOn(take) {
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") && !byId("dialog").open;
  // Children of the page are entered before the one that was above them is left.
  let depth = 0;
  const mark = (now) => {
    depth = Math.max(0, now);
    document.body.classList.toggle("dropping", depth > 0);
  };
  const accept = (event) => {
    if (!holdsFiles(event)) return false;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    return true;
  };
  addEventListener("dragenter", (event) => accept(event) && mark(depth + 1));
  addEventListener("dragleave", (event) => holdsFiles(event) && mark(depth - 1));
  addEventListener("dragover", accept);
  // While something is dragged the mouse itself is not heard of: a drag has ended elsewhere.
  addEventListener("mousemove", () => depth > 0 && mark(0));
  addEventListener("drop", (event) => {
    mark(0);
    if (!holdsFiles(event)) return;
    event.preventDefault();
    tell(dropped(/** @type {DataTransfer} */ (event.dataTransfer)).then(take));
  });
}
