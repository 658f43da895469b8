// Reads every test vector of the transfer protocol with nothing but docs/protocol.md: its tables say which
// fields there are and whose turn it is. Shares no code with the Python sources, and has no dependencies.
//
//     node read_vectors.mjs [directory of the vectors] [protocol.md]
//
// Prints how many vectors it agrees with; ends with 1 at the first that it does not.

import { createHash, createHmac } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { blake3, sizes } from "./cut.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const folder = process.argv[2] ?? here;
const page = readFileSync(process.argv[3] ?? join(here, "../../docs/protocol.md"), "utf8");

/** The other side broke the protocol. */
class CorruptedResponse extends Error {}
/** An OPEN that is no operation. */
class BadRequestError extends Error {}

function agree(found, expected, what) {
  const [left, right] = [canonical(found), canonical(expected)];
  if (left !== right) throw new Error(`${what}: found ${left}, expected ${right}`);
}

function canonical(value) {
  return JSON.stringify(value, (_, item) =>
    item && typeof item === "object" && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}

// The page.

/** The rows below a table's head, as arrays of cells. */
function table(head) {
  const lines = page.split("\n");
  const start = lines.indexOf(head);
  if (start < 0) throw new Error(`the page has no table ${head}`);
  const rows = [];
  for (let at = start + 2; lines[at]?.startsWith("|"); at++) {
    rows.push(lines[at].slice(2, -2).split(" | ").map((cell) => cell.replace(/^`(.*)`$/, "$1")));
  }
  return rows;
}

const NUMBER = String.raw`-?\(?(?:2\^\d+-1|\d+)\)?`;

function number(text) {
  const [, minus, power, digits] = text.match(/^(-)?\(?(?:2\^(\d+)-1|(\d+))\)?$/);
  const size = power ? 2n ** BigInt(power) - 1n : BigInt(digits);
  return minus ? -size : size;
}

/** What a field may be, from its words on the page. */
function parseType(text) {
  const span = text.match(new RegExp(`^(int|bin|str) (${NUMBER})(?: to (${NUMBER}))?$`));
  if (span) return { kind: span[1], least: number(span[2]), most: number(span[3] ?? span[2]) };
  const many = text.match(/^array of (\d+) to (\d+) × (.+)$/);
  if (text.startsWith("(")) return parseType(text.slice(1, -1));
  if (many) return { kind: "array", least: BigInt(many[1]), most: BigInt(many[2]), item: parseType(many[3]) };
  if (text.startsWith("one of ")) return { kind: "word", words: [...text.matchAll(/"([^"]+)"/g)].map((one) => one[1]) };
  if (text.endsWith(" or nil")) return { kind: "nullable", inner: parseType(text.slice(0, -7)) };
  if (text.includes(" or ")) return { kind: "either", types: text.split(" or ").map(parseType) };
  if (text === "path" || text === "bool") return { kind: text };
  if (/^[A-Z]\w+$/.test(text)) return { kind: "part", name: text };
  throw new Error(`the page says "${text}" of a field`);
}

function parseFields(text) {
  if (!text) return [];
  return text.split("; ").map((one) => {
    const [, name, words, fallback] = one.match(/^`?(\w+)` (.+?)(?: = (.+))?$/);
    return { name, type: parseType(words), optional: fallback !== undefined };
  });
}

const TYPES = new Map(
  table("| type | name | stands on | flags |").map(([type, name, place, flags]) => [
    Number(type),
    { name, place, flags: Number(flags) },
  ]),
);
const LIMITS = Object.fromEntries(table("| limit | bytes |"));
const EARLY = { control: Number(LIMITS["any frame before WELCOME"]), data: 0 };
const LARGEST = { control: Number(LIMITS["any other frame, also one that is skipped"]), data: Number(LIMITS.DATA) };
const PATH = LIMITS["a path"].match(/\d+/g).map(Number);
const PREFACE = Buffer.from(page.match(/`((?:[0-9a-f]{2} ){7}[0-9a-f]{2})`/)[1].replaceAll(" ", ""), "hex");
const PLAIN = new Map(table("| frame | says | fields |").map(([name, , fields]) => [name, parseFields(fields)]));
const TAGGED = {
  OPEN: ["op", new Map(table("| `op` | asks for | fields |").map(([tag, , fields]) => [tag, parseFields(fields)]))],
  REPLY: ["reply", new Map(table("| `reply` | says | fields |").map(([tag, , fields]) => [tag, parseFields(fields)]))],
};
const PARTS = new Map(
  table("| part | form | is | fields |").map(([name, form, , fields]) => [name, { form, fields: parseFields(fields) }]),
);

function turns(head) {
  const say = (cell) =>
    new Map(cell === "nothing" ? [] : cell.split(", ").map((one) => [one.split(" → ")[0], one.split(" → ")[1]]));
  return new Map(table(head).map(([state, , client, server]) => [state, { client: say(client), server: say(server) }]));
}

const CONNECTION = turns("| state | means | the client may say | the server may say |");
const STREAM = turns("| stream | means | the client may say | the server may say |");
const SHAPES = new Map(
  table("| operation | client's content | REPLY | how many | server's content |").map(
    ([op, content, reply, count, answer]) => {
      const counts = count.match(/\d+/g).map(Number);
      const most = count.endsWith("more") ? Infinity : (counts[1] ?? counts[0]);
      return [op, { content: content === "none" ? [] : content.split(", "), reply, least: counts[0], most, answer }];
    },
  ),
);

/** The frames whose payload takes credit. */
const CONTENT = new Set(["DATA", "FILES", "COPY"]);
const MASKS = new Map(
  table("| average | narrow | wide |").map(([average, narrow, wide]) => [Number(average), { narrow, wide }]),
);

// MessagePack.

class Unpacker {
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  take(size) {
    if (this.at + size > this.data.length) throw new CorruptedResponse("the payload is cut");
    this.at += size;
    return this.data.subarray(this.at - size, this.at);
  }

  uint(size) {
    return [...this.take(size)].reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  }

  text(size) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(Number(size)));
    } catch (error) {
      if (error instanceof CorruptedResponse) throw error;
      throw new CorruptedResponse("text that is no UTF-8");
    }
  }

  array(size, depth) {
    const found = [];
    for (let left = size; left > 0n; left--) found.push(this.value(depth + 1));
    return found;
  }

  map(size, depth) {
    const found = new Map();
    for (let left = size; left > 0n; left--) found.set(this.value(depth + 1), this.value(depth + 1));
    return found;
  }

  value(depth = 0) {
    if (depth > 500) throw new CorruptedResponse("nested too deeply");
    const head = this.take(1)[0];
    if (head < 0x80) return BigInt(head);
    if (head < 0x90) return this.map(BigInt(head & 15), depth);
    if (head < 0xa0) return this.array(BigInt(head & 15), depth);
    if (head < 0xc0) return this.text(head & 31);
    if (head >= 0xe0) return BigInt(head) - 256n;
    if (head === 0xc0) return null;
    if (head === 0xc2 || head === 0xc3) return head === 0xc3;
    if (head >= 0xc4 && head <= 0xc6) return this.take(Number(this.uint(1 << (head - 0xc4))));
    if (head >= 0xc7 && head <= 0xc9) return { ext: this.take(Number(this.uint(1 << (head - 0xc7))) + 1) };
    if (head === 0xca || head === 0xcb) return { float: this.take(head === 0xca ? 4 : 8) };
    if (head >= 0xcc && head <= 0xcf) return this.uint(1 << (head - 0xcc));
    if (head >= 0xd0 && head <= 0xd3) return BigInt.asIntN(8 << (head - 0xd0), this.uint(1 << (head - 0xd0)));
    if (head >= 0xd4 && head <= 0xd8) return { ext: this.take((1 << (head - 0xd4)) + 1) };
    if (head >= 0xd9 && head <= 0xdb) return this.text(this.uint(1 << (head - 0xd9)));
    if (head === 0xdc || head === 0xdd) return this.array(this.uint(head === 0xdc ? 2 : 4), depth);
    if (head === 0xde || head === 0xdf) return this.map(this.uint(head === 0xde ? 2 : 4), depth);
    throw new CorruptedResponse("this is no MessagePack");
  }
}

function unpack(payload) {
  const unpacker = new Unpacker(payload);
  const value = unpacker.value();
  if (unpacker.at !== payload.length) throw new CorruptedResponse("something stands behind the message");
  return value;
}

/** A value as the JSON of the vectors has it. */
function plain(value) {
  if (typeof value === "bigint") {
    return value >= 2n ** 53n || value <= -(2n ** 53n) ? { int: String(value) } : Number(value);
  }
  if (value instanceof Uint8Array) return { bin: value.toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  return value;
}

// Messages.

function isPath(value) {
  if (!(value instanceof Uint8Array) || value.length > PATH[0]) return false;
  if (value.length === 0) return true;
  const names = value.toString("latin1").split("/");
  const good = (name) => name.length > 0 && name.length <= PATH[2] && name !== "." && name !== ".." && !name.includes("\0");
  return names.length <= PATH[1] && names.every(good);
}

function fits(type, value) {
  const within = (size) => BigInt(size) >= type.least && BigInt(size) <= type.most;
  switch (type.kind) {
    case "int":
      return typeof value === "bigint" && within(value);
    case "bin":
      return value instanceof Uint8Array && within(value.length);
    case "str":
      return typeof value === "string" && within([...value].length);
    case "array":
      return Array.isArray(value) && within(value.length) && value.every((item) => fits(type.item, item));
    case "word":
      return type.words.includes(value);
    case "either":
      return type.types.some((one) => fits(one, value));
    case "nullable":
      return value === null || fits(type.inner, value);
    case "bool":
      return typeof value === "boolean";
    case "path":
      return isPath(value);
    default:
      return isPart(PARTS.get(type.name), value);
  }
}

function isPart({ form, fields }, value) {
  if (form === "map") return hasFields(fields, value);
  const good = (field, at) => (at < value.length ? fits(field.type, value[at]) : field.optional);
  return Array.isArray(value) && fields.every(good);
}

function hasFields(fields, value) {
  if (!(value instanceof Map) || ![...value.keys()].every((key) => typeof key === "string")) return false;
  return fields.every(({ name, type, optional }) => (value.has(name) ? fits(type, value.get(name)) : optional));
}

/** The message in a payload, when all its fields are right. */
function read(name, payload) {
  const value = unpack(payload);
  let fields = PLAIN.get(name);
  if (name in TAGGED) {
    const [key, kinds] = TAGGED[name];
    fields = value instanceof Map ? kinds.get(value.get(key)) : undefined;
  }
  if (fields && hasFields(fields, value)) return value;
  throw new (name === "OPEN" ? BadRequestError : CorruptedResponse)(`this is no ${name}`);
}

// Frames.

/** Cuts what one side sends into frames. */
class Frames {
  constructor(limits) {
    this.limits = limits;
    this.kept = Buffer.alloc(0);
    this.greeted = false;
  }

  feed(data) {
    this.kept = Buffer.concat([this.kept, data]);
    const size = Math.min(PREFACE.length, this.kept.length);
    if (this.greeted) return;
    if (!this.kept.subarray(0, size).equals(PREFACE.subarray(0, size))) throw new CorruptedResponse("another protocol");
    if (size < PREFACE.length) return;
    this.greeted = true;
    this.kept = this.kept.subarray(size);
  }

  next() {
    while (this.greeted && this.kept.length >= 12) {
      const size = this.kept.readUInt32BE(0);
      const type = TYPES.get(this.kept[4]);
      this.check(size, type);
      if (this.kept.length < 12 + size) return null;
      const frame = {
        type: type?.name,
        stream: this.kept.readUInt32BE(8),
        payload: this.kept.subarray(12, 12 + size),
        compressed: type?.name === "DATA" && Boolean(this.kept[5] & 1),
      };
      this.kept = this.kept.subarray(12 + size);
      if (type) return frame;
    }
    return null;
  }

  check(size, type) {
    const [number, flags, zero, stream] = [this.kept[4], this.kept[5], this.kept.readUInt16BE(6), this.kept.readUInt32BE(8)];
    const most = type?.name === "DATA" ? this.limits.data : this.limits.control;
    if (zero || size > most) throw new CorruptedResponse("a wrong header");
    if (number >= 0x80) return;
    if (!type || flags & ~type.flags) throw new CorruptedResponse("an unknown type or flag");
    const place = { "stream 0": stream === 0, "a stream other than 0": stream !== 0, "any stream": true }[type.place];
    if (!place || (type.name === "DATA" && !size)) throw new CorruptedResponse("a wrong stream, or nothing in it");
  }
}

// Proofs.

const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
const sha256 = (data) => createHash("sha256").update(data).digest();
const xor = (left, right) => Buffer.from(left.map((byte, at) => byte ^ right[at]));

function framed(...parts) {
  return Buffer.concat(
    parts.flatMap((part) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(part.length);
      return [length, part];
    }),
  );
}

/** All that both sides calculate of a token and of what was said. */
function proofs(token, { transcript, client_nonce, server_nonce, binding }) {
  const clientKey = hmac(token, "Client Key");
  const id = hmac(token, "id").subarray(0, 8);
  const [stored_key, server_key] = [sha256(clientKey), hmac(token, "Server Key")];
  const label = Buffer.from("fileexport/1 authentication");
  const message = Buffer.concat([label, framed(transcript, id, client_nonce, server_nonce, binding)]);
  const client_proof = xor(clientKey, hmac(stored_key, message));
  return { id, stored_key, server_key, message, client_proof, server_proof: hmac(server_key, message) };
}

// Conversations.

/** Follows both sides of a connection, by the tables of turns. */
class Follower {
  constructor({ token, binding }) {
    this.token = token;
    this.said = { binding: Buffer.from(binding, "hex") };
    this.state = "START";
    this.frames = { client: new Frames(EARLY), server: new Frames(EARLY) };
    this.hello = {};
    this.streams = new Map();
    this.last = 0;
    this.credit = { client: new Map(), server: new Map() };
  }

  /** One frame of `sender`: as the vectors have it. Throws where it was not its turn. */
  frame(sender, { type, stream, payload, compressed }) {
    const cell = CONNECTION.get(this.state)[sender];
    if (!cell.has(type)) throw new CorruptedResponse(`${type} of the ${sender} in ${this.state}`);
    const value = type === "DATA" ? null : read(type, payload);
    if (CONTENT.has(type)) this.charge(sender, stream, payload.length);
    if (stream) this.onStream(sender, type, stream, value);
    else this.onConnection(sender, type, value, payload);
    this.state = cell.get(type) ?? this.state;
    if (type === "DATA") return { type, stream, compressed, payload: payload.toString("hex") };
    return { type, stream, value: plain(value) };
  }

  onConnection(sender, type, value, payload) {
    if (type === "HELLO") this.hello[sender] = { payload, limits: value.get("limits") };
    if (type === "AUTH") Object.assign(this.said, { id: value.get("id"), client_nonce: value.get("nonce") });
    if (type === "CHALLENGE") this.said.server_nonce = value.get("nonce");
    if (type === "PROOF") this.proved(value.get("proof"));
    if (type === "REFUSED" && this.right) throw new Error("a right proof was refused");
    if (type === "WELCOME") this.welcome(value.get("proof"));
    if (type === "CREDIT") this.addCredit(sender, 0, value.get("bytes"));
  }

  proved(proof) {
    this.said.transcript = sha256(framed(this.hello.client.payload, this.hello.server.payload));
    this.proofs = proofs(this.token, this.said);
    this.right = this.proofs.id.equals(this.said.id) && this.proofs.client_proof.equals(proof);
  }

  welcome(proof) {
    if (!this.right || !this.proofs.server_proof.equals(proof)) throw new Error("a proof in the conversation is wrong");
    for (const [sender, receiver] of [["client", "server"], ["server", "client"]]) {
      const limits = this.hello[receiver].limits;
      this.frames[sender].limits = { control: Number(limits.get("control")), data: Number(limits.get("data")) };
      this.credit[sender].set(0, limits.get("connection_credit"));
    }
  }

  onStream(sender, type, number, value) {
    if (type === "OPEN") return this.open(number, value);
    const stream = this.streams.get(number);
    if (!stream && number > this.last) throw new CorruptedResponse(`stream ${number} was never opened`);
    if (!stream) return undefined;
    if (type === "CREDIT") return this.addCredit(sender, number, value.get("bytes"));
    const cell = STREAM.get(stream.state)[sender];
    const content = sender === "client" ? stream.content : [stream.shape.answer];
    if (!cell.has(type) || (CONTENT.has(type) && !content.includes(type))) {
      throw new CorruptedResponse(`${type} of the ${sender}: it has no turn`);
    }
    if (type === "REPLY" && (value.get("reply") !== stream.shape.reply || ++stream.replies > stream.shape.most)) {
      throw new CorruptedResponse("a REPLY that does not belong here");
    }
    if (sender === "server" && (type === "END" || type === "DATA") && stream.replies < stream.shape.least) {
      throw new CorruptedResponse("a REPLY is missing");
    }
    stream.state = cell.get(type) ?? stream.state;
    if (stream.state === "CLOSED") this.streams.delete(number);
    return undefined;
  }

  open(number, value) {
    if (number <= this.last || this.streams.size >= Number(this.hello.server.limits.get("streams"))) {
      throw new CorruptedResponse(`stream ${number} cannot be opened`);
    }
    const shape = SHAPES.get(value.get("op"));
    const resuming = value.get("op") === "write" && (value.get("source") ?? null) !== null;
    const state = resuming ? "RESUMING" : shape.content.length ? "SENDING" : "ANSWERING";
    const content = shape.content.filter((type) => type !== "COPY" || value.get("bases")?.length);
    this.last = number;
    this.streams.set(number, { shape, content, state, replies: 0 });
    this.credit.client.set(number, this.hello.server.limits.get("stream_credit"));
    this.credit.server.set(number, this.hello.client.limits.get("stream_credit"));
  }

  charge(sender, stream, size) {
    for (const number of [0, stream]) {
      const left = (this.credit[sender].get(number) ?? 0n) - BigInt(size);
      if (left < 0n) throw new CorruptedResponse("more than the credit");
      this.credit[sender].set(number, left);
    }
  }

  addCredit(sender, stream, count) {
    const other = sender === "client" ? "server" : "client";
    const sum = (this.credit[other].get(stream) ?? 0n) + count;
    if (sum >= 2n ** 31n) throw new CorruptedResponse("more credit than a window can be");
    this.credit[other].set(stream, sum);
  }
}

function follow(row) {
  const follower = new Follower(row);
  let broken = null;
  for (const [at, step] of row.steps.entries()) {
    const what = `step ${at + 1}`;
    const reader = follower.frames[step.from];
    const found = [];
    reader.feed(Buffer.from(step.hex, "hex"));
    for (let frame; (frame = reader.next()); ) {
      if (broken) {
        const value = read(frame.type, frame.payload);
        if (step.from === broken || frame.type !== "GOAWAY") throw new Error(`${what}: it goes on after a fatal error`);
        agree(Number(value.get("code")), 13, what);
        found.push({ type: frame.type, stream: frame.stream, value: plain(value) });
        continue;
      }
      try {
        found.push(follower.frame(step.from, frame));
      } catch (error) {
        if (!(error instanceof CorruptedResponse)) throw error;
        broken = step.from;
        found.push({ type: frame.type, stream: frame.stream, value: plain(read(frame.type, frame.payload)) });
      }
    }
    agree(found, step.frames, what);
    if (reader.kept.length) throw new Error(`${what}: a frame is cut`);
  }
  if (Boolean(broken) !== row.broken) throw new Error(`broken: ${broken}`);
  const isOver = !follower.streams.size && ["CLOSED", "LEAVING"].includes(follower.state);
  if (!broken && !isOver) throw new Error(`it ends in ${follower.state}`);
}

// Folders of a manifest.

/** A value as it was before it became JSON. */
function unplain(value) {
  if (typeof value === "number") return BigInt(value);
  if (Array.isArray(value)) return value.map(unplain);
  if (value?.bin !== undefined) return Buffer.from(value.bin, "hex");
  if (value?.int !== undefined) return BigInt(value.int);
  return value;
}

/** The lines that a folder says: name, kind, size, time, mode, text of the link. */
function lines(folder) {
  if (!isPart(PARTS.get("Folder"), folder)) throw new Error("this is no Folder");
  const [, joined, letters, bytes, times, modes, targets] = folder;
  const kinds = [...letters.toString("latin1")];
  const names = joined.length || kinds.length ? joined.toString("latin1").split("\0") : [];
  const unlike = (column) => column.length !== names.length;
  if ([kinds, bytes, times, modes].some(unlike) || new Set(names).size < names.length) {
    throw new CorruptedResponse("columns of different lengths, or a name twice");
  }
  const links = kinds.filter((kind) => kind === "l").length;
  if (targets.length !== links || targets.some((target) => target.includes(0)) || !kinds.every((kind) => "fdlo".includes(kind))) {
    throw new CorruptedResponse("kinds that are none, or other links");
  }
  let link = 0;
  return names.map((name, at) => {
    if (name === "" || !isPath(Buffer.from(name, "latin1")) || name.includes("/")) throw new CorruptedResponse("this is no name");
    if (bytes[at] && kinds[at] !== "f") throw new CorruptedResponse("a size of what is no file");
    const target = kinds[at] === "l" ? targets[link++] : Buffer.alloc(0);
    return [Buffer.from(name, "latin1"), kinds[at], bytes[at], times[at], modes[at], target];
  });
}

// The files.

/** The name of the error that `run` ends with, or undefined. */
function errorOf(run) {
  try {
    run();
  } catch (error) {
    if (error instanceof CorruptedResponse || error instanceof BadRequestError) return error.constructor.name;
    throw error;
  }
  return undefined;
}

/** The content of which the vectors say chunks. */
function generated(size) {
  const blocks = [];
  for (let number = 0; number * 32 < size; number++) {
    const counter = Buffer.alloc(4);
    counter.writeUInt32BE(number);
    blocks.push(sha256(Buffer.concat([Buffer.from("chunks"), counter])));
  }
  return Buffer.concat(blocks).subarray(0, size);
}

const READERS = {
  "frames.json": (row) => {
    const found = [];
    const error = errorOf(() => {
      const reader = new Frames(LARGEST);
      reader.feed(Buffer.from(row.hex, "hex"));
      for (let frame; (frame = reader.next()); ) found.push({ ...frame, payload: frame.payload.toString("hex") });
    });
    agree(error, row.error, "error");
    if (!error) agree(found, row.frames, "frames");
  },
  "messages.json": (row) => {
    const reader = new Frames(LARGEST);
    reader.feed(Buffer.concat([PREFACE, Buffer.from(row.hex, "hex")]));
    const frame = reader.next();
    agree(frame.type, row.type, "type");
    agree(plain(read(frame.type, frame.payload)), row.value, "value");
    if (reader.kept.length) throw new Error("something stands behind the frame");
  },
  "bad-messages.json": (row) => agree(errorOf(() => read(row.type, Buffer.from(row.payload, "hex"))), row.error, "error"),
  "folders.json": (row) => {
    let found;
    agree(errorOf(() => (found = lines(unplain(row.folder)))), row.error, "error");
    if (found) agree(plain(found), row.lines, "lines");
  },
  "conversations.json": follow,
  "proofs.json": ({ token, ...row }) => {
    const parts = Object.fromEntries(Object.entries(row).map(([name, hex]) => [name, Buffer.from(hex, "hex")]));
    for (const [name, value] of Object.entries(proofs(token, parts))) agree(value.toString("hex"), row[name], name);
  },
  "chunks.json": (row) => {
    const content = Buffer.concat([Buffer.from(row.before, "hex"), row.zeros ? Buffer.alloc(row.size) : generated(row.size)]);
    const { narrow, wide } = MASKS.get(row.average);
    let start = 0;
    const found = [...sizes(content, row.average, narrow, wide)].map((size) => {
      start += size;
      return [size, blake3(content.subarray(start - size, start)).toString("hex")];
    });
    agree(found, row.chunks, "chunks");
  },
};

let count = 0;
try {
  agree(readdirSync(folder).filter((name) => name.endsWith(".json")).sort(), Object.keys(READERS).sort(), "files");
  for (const [file, reader] of Object.entries(READERS)) {
    for (const [at, row] of JSON.parse(readFileSync(join(folder, file), "utf8")).entries()) {
      try {
        reader(row);
      } catch (error) {
        throw new Error(`${file}, ${row.name ?? `number ${at + 1}`}: ${error.message}`);
      }
      count++;
    }
  }
  console.log(`${count} vectors agree`);
} catch (error) {
  console.error(`disagreement: ${error.message}`);
  process.exitCode = 1;
}
