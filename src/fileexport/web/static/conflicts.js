/** Questions about files that are there already: one at a time, or one for all. */

import { question } from "./asking.js";
import { make, named } from "./dom.js";

/** @typedef {import("./queue.js").Item} Item */

export class Conflicts {
  /** @param {import("./queue.js").Queue} queue */
  constructor(queue) {
    this.queue = queue;
    this.asking = false;
  }

  /** Settle what is in the way, by the answers that were given, or by asking. */
  async settle() {
    if (this.asking) return;
    this.asking = true;
    try {
      for (let [item] = this.queue.in("conflict"); item !== undefined; [item] = this.queue.in("conflict")) {
        if (item.policy === "ask") await this.ask(item);
        else this.apply(item, item.policy);
      }
    } finally {
      this.asking = false;
    }
  }

  /** @param {Item} item */
  async ask(item) {
    const box = make("input", { type: "checkbox", name: "all" });
    const answer = await question({
      title: "There is one already",
      body: [
        make("p", {}, "“", named(item.path), "” is there already."),
        make("label", { class: "check" }, box, " The same for all others"),
      ],
      refuse: "",
      choices: [
        { value: "skip", label: "Skip" },
        { value: "rename", label: "Keep both" },
        { value: "replace", label: "Replace", style: "danger" },
      ],
    });
    const choice = /** @type {import("./queue.js").Policy} */ (answer?.choice ?? "skip");
    if (answer?.data.has("all")) this.decide(choice);
    this.apply(item, choice);
  }

  /** What comes to the same question later has its answer. @param {import("./queue.js").Policy} policy */
  decide(policy) {
    for (const item of this.queue.items) if (item.policy === "ask" && item.state !== "done") item.policy = policy;
  }

  /** @param {Item} item @param {import("./queue.js").Policy} policy */
  apply(item, policy) {
    // Cancelled while it was asked about.
    if (item.state !== "conflict") return;
    if (policy === "skip") this.queue.act("skip", item, { note: "Skipped: there is one already." });
    else this.queue.act("answer", item, { policy });
  }
}
