/** Of many rows only those that are seen are there. */

import assert from "node:assert/strict";
import test from "node:test";

import { scrollTo, windowOf } from "./static/rows_window.js";

const PLACE = { count: 50000, height: 40, view: 800, margin: 20 };

test("at the top there are the rows of the view and the margin below", () => {
  assert.deepEqual(windowOf({ ...PLACE, top: -300 }), { first: 0, end: 33 });
});

test("in the middle there is a margin on both sides", () => {
  assert.deepEqual(windowOf({ ...PLACE, top: 40000 }), { first: 980, end: 1040 });
});

test("every place of the view is covered, and nothing beyond the rows", () => {
  for (let top = -1000; top < PLACE.count * PLACE.height + 1000; top += 4217) {
    const { first, end } = windowOf({ ...PLACE, top });
    assert.ok(first >= 0 && end <= PLACE.count && first < end && end - first <= 61, `at ${top}`);
    const [from, to] = [Math.max(0, top), Math.min(top + PLACE.view, PLACE.count * PLACE.height)];
    if (from < to) assert.ok(first * PLACE.height <= from && end * PLACE.height >= to, `at ${top}`);
  }
});

test("a table that became short shows its last rows, an empty one none", () => {
  assert.deepEqual(windowOf({ ...PLACE, count: 400, top: 2000000 }), { first: 380, end: 400 });
  assert.deepEqual(windowOf({ ...PLACE, count: 0, top: 0 }), { first: 0, end: 0 });
});

test("before a row was measured there are a few", () => {
  assert.deepEqual(windowOf({ ...PLACE, height: 0, top: 0 }), { first: 0, end: 20 });
});

test("a row is scrolled to as little as it takes", () => {
  const place = { height: 40, top: 400, view: 800 };
  assert.equal(scrollTo({ ...place, row: 15 }), 0);
  assert.equal(scrollTo({ ...place, row: 9 }), -40);
  assert.equal(scrollTo({ ...place, row: 30 }), 40);
  assert.equal(scrollTo({ ...place, row: 0 }), -400);
});
