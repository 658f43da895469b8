/** Which rows of a long table are worth having, when all are equally high. */

/**
 * @typedef {object} Window
 * @property {number} first the first row to have
 * @property {number} end the row behind the last one
 */

/**
 * The rows that are seen, and `margin` more on either side.
 * @param {object} place
 * @param {number} place.count rows altogether
 * @param {number} place.height pixels of a row
 * @param {number} place.top pixels of the rows that are above the view; negative where they begin below it
 * @param {number} place.view pixels of the view
 * @param {number} place.margin rows
 * @returns {Window}
 */
export function windowOf({ count, height, top, view, margin }) {
  if (height <= 0) return { first: 0, end: Math.min(count, margin) };
  const first = clamp(Math.floor(top / height) - margin, 0, count);
  const end = clamp(Math.ceil((top + view) / height) + margin, first, count);
  // Past the end, after a long table became a short one: its last rows rather than none.
  return first === end && count > 0 ? { first: Math.max(0, count - margin), end: count } : { first, end };
}

/**
 * How far to scroll so that a row is in view: 0 where it is.
 * @param {object} place
 * @param {number} place.row
 * @param {number} place.height pixels of a row
 * @param {number} place.top pixels of the rows that are above the view
 * @param {number} place.view pixels of the view
 * @returns {number}
 */
export function scrollTo({ row, height, top, view }) {
  const begin = row * height;
  if (begin < top) return begin - top;
  if (begin + height > top + view) return begin + height - top - view;
  return 0;
}

/** @param {number} value @param {number} least @param {number} most */
function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
