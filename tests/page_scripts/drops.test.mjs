/** What is dropped is found, however deep and however many; and what is there already, too. */

import assert from "node:assert/strict";
import test from "node:test";

import { chosen, walk } from "./static/drops.js";
import { Existing } from "./static/existing.js";

/** As browsers give them (File and Directory Entries API): a reader hands out a part at a time. */
const fileEntry = (name) => ({ name, isFile: true, file: (resolve) => resolve({ name }) });
const directoryEntry = (name, content) => ({ name, isFile: false, createReader: () => reader([...content]) });
const reader = (rest) => ({ readEntries: (resolve) => setImmediate(resolve, rest.splice(0, 100)) });

const all = (entry, parts = [Array(300000).fill(entry), []]) => ({ readEntries: (resolve) => resolve(parts.shift()) });

test("a directory of more entries than a reader gives at once is found whole, in its order", async () => {
  const names = Array.from({ length: 250 }, (_, index) => `f${index}`);
  const found = await walk([directoryEntry("d", names.map(fileEntry))]);
  assert.deepEqual(found.map(({ path }) => path), names.map((name) => `d/${name}`));
  assert.equal(found[7].file.name, "f7");
});

test("directories are gone through, and one that is empty is told of", async () => {
  const deep = directoryEntry("a", [directoryEntry("b", []), directoryEntry("c", [fileEntry("x")])]);
  const found = await walk([fileEntry("top"), deep]);
  assert.deepEqual(
    found.map(({ path, file }) => [path, file?.name ?? null]),
    [
      ["top", "top"],
      ["a/b/", null],
      ["a/c/x", "x"],
    ],
  );
});

test("a tree holds more files than a call has arguments", async () => {
  const file = fileEntry("f");
  const found = await walk([directoryEntry("d", [{ ...directoryEntry("e", []), createReader: () => all(file) }])]);
  assert.equal(found.length, 300000);
});

test("an entry that cannot be read is an error, not a gap", async () => {
  const broken = { name: "x", isFile: true, file: (_, reject) => reject(new Error("NotReadable")) };
  await assert.rejects(walk([broken]), /NotReadable/);
});

test("files of a chosen directory keep their paths", () => {
  const files = [
    { name: "x", webkitRelativePath: "d/e/x" },
    { name: "y", webkitRelativePath: "" },
  ];
  assert.deepEqual(chosen(files).map(({ path }) => path), ["d/e/x", "y"]);
});

/** A tree that counts how often each directory is read; a directory that is not there must not be. */
function tree() {
  const asked = [];
  const directories = { "": { a: "directory", f: "file" }, "a/": { b: "directory" }, "a/b/": { x: "file" } };
  const read = async (path) => {
    asked.push(path);
    assert.ok(path in directories, `${path} is asked for, and not there`);
    return new Map(Object.entries(directories[path]));
  };
  return { asked, existing: new Existing(read) };
}

test("what is there already is known without asking for a directory that is not", async () => {
  const { asked, existing } = tree();
  for (const [path, there] of [
    ["f", true],
    ["g", false],
    ["a", true],
    ["a/b/x", true],
    ["a/b/y", false],
    ["a/n/x", false],
    ["new/deep/x", false],
    ["f/x", false],
  ]) {
    assert.equal(await existing.has(path), there, path);
  }
  assert.deepEqual(asked, ["", "a/", "a/b/"]);
});

test("a directory that could not be read is asked for again", async () => {
  let asked = 0;
  const existing = new Existing(async () => {
    if (++asked === 1) throw new Error("the session is over");
    return new Map([["f", "file"]]);
  });
  await assert.rejects(existing.has("f"), /session/);
  assert.equal(await existing.has("f"), true);
});
