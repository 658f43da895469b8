/** What is seen of a directory, and in which order. */

import assert from "node:assert/strict";
import test from "node:test";

import { arrange } from "./static/ordering.js";

const entry = (label, type, size, mtime) => ({ name: label, label, type, size, mtime, href: "", kind: "other" });
/** In natural order, as the server sends them. */
const ENTRIES = [
  entry("Été", "directory", 4096, 5),
  entry("zoo", "directory", 10, 9),
  entry("file2", "file", 30, 3),
  entry("File10", "file", 20, 1),
  entry("link", "link", 7, 3),
];
const seen = (wish) => arrange(ENTRIES, { sort: "name", order: "asc", filter: "", ...wish }).map(({ label }) => label);

test("directories are first in every order", () => {
  assert.deepEqual(seen({}), ["Été", "zoo", "file2", "File10", "link"]);
  assert.deepEqual(seen({ order: "desc" }), ["zoo", "Été", "link", "File10", "file2"]);
});

test("by size the directories keep the order of their names", () => {
  assert.deepEqual(seen({ sort: "size" }), ["Été", "zoo", "link", "File10", "file2"]);
  assert.deepEqual(seen({ sort: "size", order: "desc" }), ["Été", "zoo", "file2", "File10", "link"]);
});

test("what is equal stays in natural order, upwards and downwards", () => {
  assert.deepEqual(seen({ sort: "mtime" }), ["Été", "zoo", "File10", "file2", "link"]);
  assert.deepEqual(seen({ sort: "mtime", order: "desc" }), ["zoo", "Été", "file2", "link", "File10"]);
});

test("the filter finds parts of names, whatever their case and their way to write accents", () => {
  assert.deepEqual(seen({ filter: " FILE " }), ["file2", "File10"]);
  assert.deepEqual(seen({ filter: "e\u0301t" }), ["Été"]);
  assert.deepEqual(seen({ filter: "nothing" }), []);
});

test("the entries themselves stay in their order", () => {
  seen({ order: "desc" });
  assert.equal(ENTRIES[0].label, "Été");
});
