/**
 * Names and paths as the page and its URLs write them. A name is its bytes, percent-encoded; a path is
 * names behind slashes, and a directory's ends with one.
 */

/** Bytes that a name may have. */
const LONGEST = 255;
/** Control characters, which have pictures. */
const CONTROLS = /[\0-\x1f\x7f]/g;
/** What is not seen, or reorders the text around it: as the server has it. */
const UNSEEN =
  /[\x80-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u{d800}-\u{dfff}\ufeff\ufff9-\ufffb\ufffe\uffff]/gu;

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
 * Whether a path is another one, or the one beside it that the server made of it, as `a (1).txt` of `a.txt`.
 * @param {string} path
 * @param {string} wanted
 */
export function isBeside(path, wanted) {
  const numbers = path.matchAll(/ \([1-9]\d*\)(?=[^/]*$)/g);
  const without = ({ 0: text, index }) => path.slice(0, index) + path.slice(index + text.length);
  return path === wanted || Array.from(numbers, without).includes(wanted);
}

/**
 * A name for a reader: control characters as their pictures, what is unseen or reorders text as U+FFFD. What
 * the server says of names has come through this already, and stays as it is.
 * @param {string} text
 */
export function visible(text) {
  const picture = (sign) => (sign === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + sign.charCodeAt(0)));
  return text.replace(CONTROLS, picture).replace(UNSEEN, "\ufffd");
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
  if (name.search(CONTROLS) >= 0) return "A name has no control characters.";
  if (new TextEncoder().encode(name).length > LONGEST) return `This name is longer than ${LONGEST} bytes.`;
  return "";
}
