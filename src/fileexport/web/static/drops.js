/** What was dropped onto the page, or chosen: files with their paths, and directories that hold nothing. */

/**
 * @typedef {object} Found
 * @property {string} path below where it was dropped; a directory's ends with a slash
 * @property {File | null} file null for a directory that is empty
 */

/**
 * What is in a drop. Its entries must be taken while the event is handled; all else comes later.
 * @param {DataTransfer} transfer
 * @returns {Promise<Found[]>}
 */
export function dropped(transfer) {
  const files = Array.from(transfer.items).filter((item) => item.kind === "file");
  const entries = files.map((item) => item.webkitGetAsEntry?.() ?? null);
  if (entries.length > 0 && entries.every((entry) => entry !== null)) return walk(entries);
  return Promise.resolve(chosen(transfer.files));
}

/**
 * What was chosen in a field for files, or for a directory.
 * @param {Iterable<File>} files
 * @returns {Found[]}
 */
export function chosen(files) {
  return Array.from(files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * Everything in these entries and below them, in the order of the directories.
 * @param {Iterable<any>} entries FileSystemEntry objects
 * @param {string} [above] the path they are in, with a slash at its end
 * @param {Found[]} [found] where they are added
 */
export async function walk(entries, above = "", found = []) {
  for (const entry of entries) {
    const path = above + entry.name;
    if (entry.isFile) found.push({ path, file: await fileOf(entry) });
    else {
      const inside = await contentOf(entry);
      if (inside.length === 0) found.push({ path: `${path}/`, file: null });
      else await walk(inside, `${path}/`, found);
    }
  }
  return found;
}

/** @param {any} entry */
function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

/** A reader gives a part at a time (100 in Chromium), and nothing when all was read. @param {any} entry */
async function contentOf(entry) {
  const reader = entry.createReader();
  const content = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return content;
    for (const entry of part) content.push(entry);
  }
}
