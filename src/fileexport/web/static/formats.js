/** Numbers, times and amounts as people read them. */

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/**
 * Bytes in the largest binary unit that keeps the number at one or more, as the server writes them.
 * @param {number} bytes
 * @returns {string}
 */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  for (const unit of UNITS) {
    value /= 1024;
    // 1023.95 would be written as 1024.0.
    if (value < 1023.95 || unit === "EiB") return `${value.toFixed(1)} ${unit}`;
  }
  return "";
}

/**
 * A number with commas between its thousands.
 * @param {number} value
 * @returns {string}
 */
export function number(value) {
  return Math.round(value).toLocaleString("en");
}

/**
 * `1 file`, `2,000 files`.
 * @param {number} value
 * @param {string} one
 * @param {string} [many]
 * @returns {string}
 */
export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/**
 * The exact number of bytes.
 * @param {number} bytes
 * @returns {string}
 */
export function exactSize(bytes) {
  return count(bytes, "byte");
}

/**
 * Bytes a second.
 * @param {number} rate
 * @returns {string}
 */
export function rate(rate) {
  return `${size(Math.round(rate))}/s`;
}

/**
 * Seconds in the two largest units that say something.
 * @param {number} seconds
 * @returns {string}
 */
export function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return joined(minutes, "min", whole % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return joined(hours, "h", minutes % 60, "min");
  return joined(Math.floor(hours / 24), "days", hours % 24, "h");
}

/** @param {number} large @param {string} one @param {number} small @param {string} other */
function joined(large, one, small, other) {
  return small === 0 ? `${large} ${one}` : `${large} ${one} ${small} ${other}`;
}

/**
 * A time, in seconds since 1970, to the minute in the reader's own time zone; a dash where there is none.
 * @param {number} seconds
 * @returns {string}
 */
export function date(seconds) {
  const time = new Date(seconds * 1000);
  if (Number.isNaN(time.getTime())) return "–";
  const [year, month, day] = [time.getFullYear(), time.getMonth() + 1, time.getDate()];
  if (year < 1 || year > 9999) return "–";
  return `${pad(year, 4)}-${pad(month)}-${pad(day)} ${pad(time.getHours())}:${pad(time.getMinutes())}`;
}

/**
 * The same to the second, with the reader's distance from UTC; empty where there is none.
 * @param {number} seconds
 * @returns {string}
 */
export function exactDate(seconds) {
  const minutes = date(seconds);
  if (minutes === "–") return "";
  const time = new Date(seconds * 1000);
  const offset = -time.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${pad(Math.floor(Math.abs(offset) / 60))}:${pad(Math.abs(offset) % 60)}`;
  return `${minutes}:${pad(time.getSeconds())} ${zone}`;
}

/**
 * For `<time datetime>`: ISO 8601 in UTC; empty where there is none.
 * @param {number} seconds
 * @returns {string}
 */
export function machineDate(seconds) {
  return date(seconds) === "–" ? "" : new Date(seconds * 1000).toISOString();
}

/** @param {number} value @param {number} [digits] */
function pad(value, digits = 2) {
  return String(value).padStart(digits, "0");
}
