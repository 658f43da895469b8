/** The directory page with a script: everything that is here works without one, too, in a plainer way. */

import { actOn } from "./actions.js";
import { chooseIn } from "./choosing.js";
import { byId } from "./dom.js";
import { takeFrom } from "./intake.js";
import { compressFrom } from "./jobs.js";
import { Listing } from "./listing.js";
import { previewIn } from "./preview.js";
import { shareFrom } from "./sharing.js";
import { Transfers } from "./transfers.js";

/** Milliseconds in which a download has begun. */
const BEGINS = 3000;

const listing = new Listing();
chooseIn(listing, actOn(listing));
previewIn(listing);
shareFrom(listing);
compressFrom(listing);
if (byId("upload")) {
  const transfers = new Transfers(listing);
  takeFrom(transfers);
  stayWith(transfers);
}
document.documentElement.dataset.scripted = "";

/**
 * Ask before the page is left while uploads are on their way. A download is no leaving.
 * @param {Transfers} transfers
 */
function stayWith(transfers) {
  let downloads = 0;
  document.body.addEventListener("download", () => {
    downloads += 1;
    setTimeout(() => (downloads -= 1), BEGINS);
  });
  addEventListener("beforeunload", (event) => {
    if (transfers.queue.busy && downloads === 0) event.preventDefault();
  });
}
