/**
 * What of a directory is seen, and in which order. The natural order of the names is the server's: entries
 * come in it, and every other order falls back on it.
 *
 * @typedef {object} Entry
 * @property {string} name percent-encoded
 * @property {string} label what is shown for it
 * @property {string} href empty for what cannot be opened
 * @property {"file" | "directory" | "link" | "other"} type
 * @property {string} kind what its icon shows, and the preview
 * @property {number} size bytes
 * @property {number} mtime seconds since 1970
 * @property {string} [folded] the label as the filter compares it
 *
 * @typedef {object} Wish
 * @property {"name" | "size" | "mtime"} sort
 * @property {"asc" | "desc"} order
 * @property {string} filter
 */

/**
 * The entries that the filter lets through, directories first, in the order wished for.
 * @param {readonly Entry[]} entries in natural order
 * @param {Wish} wish
 * @returns {Entry[]}
 */
export function arrange(entries, { sort, order, filter }) {
  const found = filtered(entries, filter);
  const folders = found.filter((entry) => entry.type === "directory");
  const others = found.filter((entry) => entry.type !== "directory");
  return [...sorted(folders, sort, order), ...sorted(others, sort, order)];
}

/**
 * @param {readonly Entry[]} entries
 * @param {string} filter
 * @returns {readonly Entry[]}
 */
function filtered(entries, filter) {
  const wanted = fold(filter.trim());
  if (wanted === "") return entries;
  return entries.filter((entry) => {
    entry.folded ??= fold(entry.label);
    return entry.folded.includes(wanted);
  });
}

/**
 * @param {Entry[]} entries
 * @param {Wish["sort"]} sort
 * @param {Wish["order"]} order
 */
function sorted(entries, sort, order) {
  // A directory's size says nothing of it: those keep their names' order.
  const by = sort === "size" && entries[0]?.type === "directory" ? "name" : sort;
  if (by === "name") return order === "desc" && by === sort ? entries.reverse() : entries;
  const sign = order === "desc" ? -1 : 1;
  return entries.sort((one, other) => sign * (one[by] - other[by]));
}

/** @param {string} text */
function fold(text) {
  return text.normalize("NFC").toLowerCase();
}
