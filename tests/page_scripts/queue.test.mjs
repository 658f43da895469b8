/** Uploads wait, run, pause, fail and go on. */

import assert from "node:assert/strict";
import test from "node:test";

import { matching, Queue } from "./static/queue.js";

/** A runner that remembers what it was told. */
function runner() {
  const told = [];
  const note = (what) => (item) => told.push(`${what} ${item.path}`);
  return { told, begin: note("begin"), stop: note("stop"), discard: note("discard") };
}

/** A queue with files of these names, of 10 bytes each. */
function queueOf(names, limit = 3) {
  const run = runner();
  const queue = new Queue(run, () => {}, limit);
  const items = queue.add([...names].map((path) => ({ path, size: 10 })));
  return { run, queue, items };
}

const states = (items) => items.map(({ state }) => state).join(" ");

test("so many run at a time, in their order, and each end begins the next", () => {
  const { run, queue, items } = queueOf("abcde");
  assert.deepEqual(run.told, ["begin a", "begin b", "begin c"]);
  queue.act("finish", items[1], { sent: 10 });
  assert.equal(run.told.at(-1), "begin d");
  queue.act("fail", items[0], { note: "the disk is full" });
  assert.equal(run.told.at(-1), "begin e");
  assert.equal(states(items), "failed done running running running");
  assert.equal(items[0].note, "the disk is full");
});

test("one that is paused stops, makes room, and waits for its turn when it is resumed", () => {
  const { run, queue, items } = queueOf("abc", 1);
  queue.act("pause", items[0]);
  assert.deepEqual(run.told, ["begin a", "stop a", "begin b"]);
  queue.act("resume", items[0]);
  assert.equal(states(items), "waiting running waiting");
  queue.act("finish", items[1]);
  assert.equal(run.told.at(-1), "begin a");
});

test("all are paused at once, and none begins in between", () => {
  const { run, queue, items } = queueOf("abcd", 2);
  assert.equal(queue.all("pause"), 4);
  assert.deepEqual(run.told, ["begin a", "begin b", "stop a", "stop b"]);
  assert.equal(queue.all("resume"), 4);
  assert.equal(states(items), "running running waiting waiting");
});

test("what is cancelled is discarded and gone, and what ends after that changes nothing", () => {
  const { run, queue, items } = queueOf("ab");
  queue.act("cancel", items[0]);
  assert.equal(run.told.at(-1), "discard a");
  assert.equal(queue.act("finish", items[0]), false);
  assert.deepEqual(queue.items, [items[1]]);
  queue.all("cancel");
  assert.deepEqual(queue.items, []);
});

test("a failure is tried again, without its note", () => {
  const { run, queue, items } = queueOf("a");
  queue.act("fail", items[0], { note: "no connection", offline: true });
  assert.equal(queue.busy, false);
  assert.ok(queue.able("retry"));
  queue.act("retry", items[0]);
  assert.deepEqual(run.told, ["begin a", "begin a"]);
  assert.equal(items[0].note, "");
  assert.equal(items[0].offline, false);
});

test("a conflict waits for an answer while the others go on", () => {
  const { run, queue, items } = queueOf("ab", 1);
  queue.act("conflict", items[0]);
  assert.equal(run.told.at(-1), "begin b");
  queue.act("answer", items[0], { policy: "replace" });
  queue.act("finish", items[1]);
  assert.equal(run.told.at(-1), "begin a");
  assert.equal(items[0].policy, "replace");
});

test("what is skipped is no longer counted", () => {
  const { queue, items } = queueOf("ab");
  queue.act("conflict", items[0]);
  queue.act("skip", items[0]);
  queue.act("finish", items[1], { sent: 10 });
  assert.deepEqual(queue.totals, { files: 1, done: 1, bytes: 10, sent: 10 });
  assert.equal(queue.all("clear"), 2);
  assert.deepEqual(queue.items, []);
});

test("what the server has of a file that is not here yet runs once the file is chosen", () => {
  const run = runner();
  const queue = new Queue(run);
  const [item] = queue.add([{ path: "a", size: 10, sent: 4, state: "unfinished", url: "/u/1" }]);
  assert.deepEqual(run.told, []);
  assert.equal(queue.busy, false);
  const file = { name: "a" };
  queue.act("choose", item, { file });
  assert.deepEqual(run.told, ["begin a"]);
  assert.equal(item.file, file);
  assert.equal(item.sent, 4);
});

test("an action that a state does not allow does nothing", () => {
  const { run, queue, items } = queueOf("a");
  queue.act("finish", items[0]);
  const before = run.told.length;
  for (const action of ["finish", "fail", "pause", "resume", "retry", "answer", "skip", "choose", "cancel"]) {
    assert.equal(queue.act(action, items[0]), false, action);
    assert.equal(items[0].state, "done");
  }
  assert.equal(run.told.length, before);
});

test("what only the server knows of is not among all that are cancelled, but can be erased", () => {
  const run = runner();
  const queue = new Queue(run);
  const [left] = queue.add([{ path: "left", size: 10, state: "unfinished", url: "/u/1" }, { path: "a", size: 1 }]);
  assert.equal(queue.all("cancel"), 1);
  assert.equal(queue.able("cancel"), false);
  assert.equal(left.state, "unfinished");
  queue.act("erase", left);
  assert.deepEqual(run.told, ["begin a", "discard a", "discard left"]);
  assert.deepEqual(queue.items, []);
});

test("while a question is open the queue is busy: the page is not to be left", () => {
  const { queue, items } = queueOf("a");
  queue.act("conflict", items[0]);
  assert.equal(queue.busy, true);
  queue.act("skip", items[0]);
  assert.equal(queue.busy, false);
});

test("more files come at once than a call has arguments", () => {
  const queue = new Queue(runner(), () => {}, 0);
  queue.add(Array.from({ length: 300000 }, (_, number) => ({ path: `${number}`, size: 1 })));
  assert.equal(queue.items.length, 300000);
});

test("an upload goes on with what the server keeps of this very file, and with nobody else's", () => {
  const kept = [
    { url: "/u/1", path: "/d/a", size: 10, mtime: 5 },
    { url: "/u/2", path: "/d/a", size: 10, mtime: 6 },
    { url: "/u/3", path: "/d/a", size: 10, mtime: 6 },
  ];
  const free =
    (...taken) =>
    (url) =>
      !taken.includes(url);
  const file = { isTarget: (path) => path === "/d/a", size: 10, mtime: 6 };
  assert.equal(matching(kept, file, free())?.url, "/u/2");
  assert.equal(matching(kept, file, free("/u/2"))?.url, "/u/3");
  assert.equal(matching(kept, file, free("/u/2", "/u/3")), null);
  for (const other of [{ isTarget: (path) => path === "/d/b" }, { size: 11 }, { mtime: 7 }]) {
    assert.equal(matching(kept, { ...file, ...other }, free()), null);
  }
});
