/**
 * Names and paths as the page and its URLs write them. A name is its bytes, percent-encoded; a path is
 * names behind slashes, and a directory's ends with one.
 */

/** Bytes that a name may have. */
const LONGEST = 255;

/**
 * Percent-encode a name as the server does: all but letters, digits and `-._~`.
 * A half of a surrogate pair becomes U+FFFD.
 * @param {string} text
 * @returns {string}
 */
export function encodeName(text) {
  const whole = new TextDecoder().decode(new TextEncoder().encode(text));
  return encodeURIComponent(whole).replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * The text of a percent-encoded name or path, or null where its bytes are not UTF-8.
 * @param {string} encoded
 * @returns {string | null}
 */
export function decodeName(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return null;
  }
}

/**
 * Percent-encode a path, keeping its slashes.
 * @param {string} text
 * @returns {string}
 */
export function encodePath(text) {
  return text.split("/").map(encodeName).join("/");
}

/**
 * The last name of a path.
 * @param {string} path
 * @returns {string}
 */
export function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

/**
 * How much of a name stands before its suffix: what a rename selects. `.profile` has no suffix.
 * @param {string} name
 * @returns {number}
 */
export function stemLength(name) {
  const compressed = /\.tar\.\w{1,4}$/.exec(name);
  const dot = compressed ? compressed.index : name.lastIndexOf(".");
  return dot > 0 ? dot : name.length;
}

/**
 * What is wrong with a name that somebody typed, as a sentence; empty when it may be tried.
 * @param {string} name
 * @returns {string}
 */
export function problemOf(name) {
  if (name === "") return "Type a name.";
  if (name === "." || name === "..") return `“${name}” stands for a directory: type another name.`;
  if (name.includes("/")) return "A name has no slash.";
  if (/[\0-\x1f\x7f]/.test(name)) return "A name has no control characters.";
  if (new TextEncoder().encode(name).length > LONGEST) return `This name is longer than ${LONGEST} bytes.`;
  return "";
}

/**
 * Where a typed path leads from `here` (a percent-encoded directory): percent-encoded, with a slash at its
 * end. `..` goes up, and stays at the root.
 * @param {string} typed
 * @param {string} here
 * @returns {string}
 */
export function resolveDirectory(typed, here) {
  const names = typed.startsWith("/") ? [] : here.split("/").filter(Boolean);
  for (const name of typed.split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(encodeName(name));
  }
  return names.length === 0 ? "/" : `/${names.join("/")}/`;
}
