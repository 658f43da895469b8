/** Names pass through URLs and forms whatever is in them. */

import assert from "node:assert/strict";
import test from "node:test";

import * as names from "./static/names.js";

test("a name is encoded as the server does, and read back", () => {
  for (const [text, encoded] of [
    ["a b", "a%20b"],
    ["100%", "100%25"],
    ["it's (1)*!", "it%27s%20%281%29%2A%21"],
    ["-._~", "-._~"],
    ["été", "%C3%A9t%C3%A9"],
    ["a/b?c#d&e+f", "a%2Fb%3Fc%23d%26e%2Bf"],
    ["🦊", "%F0%9F%A6%8A"],
  ]) {
    assert.equal(names.encodeName(text), encoded);
    assert.equal(names.decodeName(encoded), text);
  }
});

test("half a surrogate pair becomes U+FFFD rather than an error", () => {
  assert.equal(names.encodeName("a\ud800b"), "a%EF%BF%BDb");
});

test("bytes that are not UTF-8 have no text", () => {
  assert.equal(names.decodeName("b%FF.txt"), null);
});

test("a path keeps its slashes", () => {
  assert.equal(names.encodePath("a b/c%/"), "a%20b/c%25/");
  assert.equal(names.encodePath("../x y/./.."), "../x%20y/./..");
  assert.equal(names.nameOf("a/b/c.txt"), "c.txt");
  assert.equal(names.nameOf("c.txt"), "c.txt");
});

test("a name beside another differs from it by a number alone", () => {
  for (const [path, wanted, is] of [
    ["a.txt", "a.txt", true],
    ["a (1).txt", "a.txt", true],
    ["a (12).tar.gz", "a.tar.gz", true],
    ["d/a (1)", "d/a", true],
    ["a (1) (2).txt", "a (1).txt", true],
    ["d (1)/a", "d/a", false],
    ["a (0).txt", "a.txt", false],
    ["a (1).txt", "b.txt", false],
    ["a(1).txt", "a.txt", false],
  ]) {
    assert.equal(names.isBeside(path, wanted), is, path);
  }
});

test("a rename selects what stands before the suffix", () => {
  for (const [name, length] of [
    ["photo.jpeg", 5],
    ["dump.tar.gz", 4],
    [".profile", 8],
    ["Makefile", 8],
    ["a.b.c", 3],
  ]) {
    assert.equal(names.stemLength(name), length, name);
  }
});

test("a name that cannot be is refused with a sentence, and a good one is not", () => {
  for (const name of ["", ".", "..", "a/b", "a\nb", "a\0", "x".repeat(256), "é".repeat(128)]) {
    assert.match(names.problemOf(name), /\.$/, JSON.stringify(name));
  }
  for (const name of ["a", "...", ".a", "a b", "é".repeat(127), "x".repeat(255), "<b>"]) {
    assert.equal(names.problemOf(name), "");
  }
});
