/** Entries are selected as in a file manager. */

import assert from "node:assert/strict";
import test from "node:test";

import { Selection } from "./static/selection.js";

const ORDER = ["a", "b", "c", "d", "e"];
const names = (selection) => [...selection.names].sort().join("");

test("a click selects one, ctrl one more or one less", () => {
  const selection = new Selection();
  selection.only("b");
  selection.toggle("d");
  assert.equal(names(selection), "bd");
  selection.toggle("b");
  assert.equal(names(selection), "d");
  selection.only("a");
  assert.equal(names(selection), "a");
});

test("shift selects from where it began, in both directions, and again from there", () => {
  const selection = new Selection();
  selection.only("c");
  selection.extend("e", ORDER);
  assert.equal(names(selection), "cde");
  selection.extend("a", ORDER);
  assert.equal(names(selection), "abc");
});

test("a range keeps what was selected before", () => {
  const selection = new Selection();
  selection.only("a");
  selection.toggle("c");
  selection.extend("d", ORDER);
  assert.equal(names(selection), "acd");
  selection.extend("c", ORDER);
  assert.equal(names(selection), "ac");
});

test("shift without a beginning, or with one that is not seen, is a click of its own", () => {
  const selection = new Selection();
  selection.extend("b", ORDER);
  assert.equal(names(selection), "b");
  selection.extend("d", ["c", "d"]);
  assert.equal(names(selection), "bd");
  selection.extend("c", ["c", "d"]);
  assert.equal(names(selection), "bcd");
});

test("what has gone is no longer selected, and all else still is", () => {
  let changes = 0;
  const selection = new Selection(() => (changes += 1));
  selection.replace(ORDER);
  selection.keep(new Set(["b", "c", "x"]));
  assert.equal(names(selection), "bc");
  assert.equal(changes, 2);
  selection.keep(new Set(["b", "c"]));
  assert.equal(changes, 2);
  selection.clear();
  assert.equal(selection.size, 0);
});

test("all that is seen, or none of it, leaves what is not seen as it is; a range goes on from there", () => {
  const selection = new Selection();
  selection.only("e");
  selection.toggle("b");
  selection.all(["a", "b"], true);
  assert.equal(names(selection), "abe");
  selection.extend("a", ["a", "b"]);
  assert.equal(names(selection), "abe");
  selection.all(["a", "b"], false);
  assert.equal(names(selection), "e");
  selection.toggle("c");
  selection.all([], false);
  assert.equal(names(selection), "ce");
});
