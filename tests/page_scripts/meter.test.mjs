/** Rates are of the last seconds. */

import assert from "node:assert/strict";
import test from "node:test";

import { Meter } from "./static/meter.js";

test("nothing is known before something was done", () => {
  const meter = new Meter();
  assert.equal(meter.rate, 0);
  meter.note(1, 0);
  assert.equal(meter.rate, 0);
  assert.equal(meter.remaining(10), null);
});

test("a rate says how long the rest takes", () => {
  const meter = new Meter();
  meter.note(0, 0);
  meter.note(2, 200);
  assert.equal(meter.rate, 100);
  assert.equal(meter.remaining(50), 0.5);
});

test("what was long ago does not count", () => {
  const meter = new Meter();
  for (let at = 0; at <= 100; at += 1) meter.note(at, at < 50 ? at * 1000 : 50000 + at);
  assert.equal(meter.rate, 1);
  assert.ok(meter.samples.length < 12);
});

test("after a loss, or a pause, it begins anew", () => {
  const meter = new Meter();
  meter.note(0, 0);
  meter.note(1, 1000);
  meter.note(2, 500);
  assert.equal(meter.rate, 0);
  meter.note(3, 600);
  assert.equal(meter.rate, 100);
  meter.restart();
  assert.equal(meter.rate, 0);
});
