/** What people read of numbers and times. */

import assert from "node:assert/strict";
import test from "node:test";

import * as formats from "./static/formats.js";

test("sizes are written as the server writes them", () => {
  for (const [bytes, text] of [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1536, "1.5 KiB"],
    [1024 ** 2 - 1, "1.0 MiB"],
    [300 * 1024 ** 2, "300.0 MiB"],
    [2 ** 40, "1.0 TiB"],
    [2 ** 60 * 3, "3.0 EiB"],
  ]) {
    assert.equal(formats.size(bytes), text);
  }
});

test("counts know one from many", () => {
  assert.equal(formats.count(1, "entry", "entries"), "1 entry");
  assert.equal(formats.count(50000, "entry", "entries"), "50,000 entries");
  assert.equal(formats.exactSize(0), "0 bytes");
  assert.equal(formats.exactSize(1), "1 byte");
});

test("durations have two units at most", () => {
  for (const [seconds, text] of [
    [0.2, "1 s"],
    [59.4, "59 s"],
    [59.6, "1 min"],
    [200, "3 min 20 s"],
    [3600, "1 h"],
    [7500, "2 h 5 min"],
    [300000, "3 days 11 h"],
  ]) {
    assert.equal(formats.duration(seconds), text);
  }
});

test("times are the reader's own, to the minute, and to the second with the zone", () => {
  // The zone of this run: see test_page_scripts.py.
  assert.equal(formats.date(1e9), "2001-09-09 07:31");
  assert.equal(formats.exactDate(1e9 + 0.9), "2001-09-09 07:31:40 +05:45");
  assert.equal(formats.machineDate(1e9 + 0.5), "2001-09-09T01:46:40.500Z");
  assert.equal(formats.date(1e9 + 59400), "2001-09-10 00:01");
});

test("a time that no calendar has is a dash", () => {
  for (const seconds of [1e15, -1e15, NaN, 8.64e12]) {
    assert.equal(formats.date(seconds), "–");
    assert.equal(formats.exactDate(seconds), "");
    assert.equal(formats.machineDate(seconds), "");
  }
});
