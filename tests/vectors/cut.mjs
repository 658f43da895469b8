// BLAKE3 of a whole content, and FastCDC as docs/protocol.md describes it. Shares no code with the Python
// sources, and has no dependencies.

import { createHash } from "node:crypto";

// BLAKE3, as its specification has it: no key, 32 bytes of output.

const IV = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
const ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const [CHUNK_START, CHUNK_END, PARENT, ROOT] = [1, 2, 4, 8];
const [BLOCK, LEAF] = [64, 1024];
/** Which word of the block stands where, in each of the seven rounds. */
const ORDERS = [Array.from({ length: 16 }, (_, at) => at)];
while (ORDERS.length < 7) ORDERS.push(ORDER.map((from) => ORDERS.at(-1)[from]));

const turned = (word, by) => (word >>> by) | (word << (32 - by));

/** The eight words that follow from eight others and a block of sixteen. */
function compressed(chain, block, counter, size, flags) {
  const high = Math.floor(counter / 2 ** 32);
  const v = Uint32Array.of(...chain, ...IV.slice(0, 4), counter >>> 0, high, size, flags);
  const mix = (a, b, c, d, first, second) => {
    v[a] += v[b] + first;
    v[d] = turned(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 12);
    v[a] += v[b] + second;
    v[d] = turned(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 7);
  };
  for (let round = 0; round < 7; round++) {
    const [m, order] = [block, ORDERS[round]];
    for (let at = 0; at < 8; at++) {
      // Four columns, then four diagonals.
      const shift = at < 4 ? 0 : 1;
      const turn = (row) => 4 * row + ((at + row * shift) & 3);
      mix(turn(0), turn(1), turn(2), turn(3), m[order[2 * at]], m[order[2 * at + 1]]);
    }
  }
  return Array.from({ length: 8 }, (_, at) => (v[at] ^ v[at + 8]) >>> 0);
}

/** Sixteen words of little-endian bytes, with zeros behind them. */
function wordsOf(bytes) {
  const whole = Buffer.alloc(BLOCK);
  bytes.copy(whole);
  return Array.from({ length: 16 }, (_, at) => whole.readUInt32LE(4 * at));
}

/** What a leaf of at most 1,024 bytes comes to. */
function leaf(bytes, number, last) {
  let chain = IV;
  const count = Math.max(1, Math.ceil(bytes.length / BLOCK));
  for (let at = 0; at < count; at++) {
    const block = bytes.subarray(at * BLOCK, (at + 1) * BLOCK);
    const flags = (at === 0 ? CHUNK_START : 0) | (at === count - 1 ? CHUNK_END | last : 0);
    chain = compressed(chain, wordsOf(block), number, block.length, flags);
  }
  return chain;
}

/** What leaves from number `first` on come to: on the left a power of two of them, and fewer on the right. */
function tree(bytes, first, last) {
  if (bytes.length <= LEAF) return leaf(bytes, first, last);
  let left = LEAF;
  while (left * 2 < bytes.length) left *= 2;
  const both = [...tree(bytes.subarray(0, left), first, 0), ...tree(bytes.subarray(left), first + left / LEAF, 0)];
  return compressed(IV, both, 0, BLOCK, PARENT | last);
}

export function blake3(bytes) {
  const found = Buffer.alloc(32);
  tree(bytes, 0, ROOT).forEach((word, at) => found.writeUInt32LE(word, 4 * at));
  return found;
}

// FastCDC. Words of 64 bits are two of 32: `high` and `low`.

const GEAR = Array.from({ length: 256 }, (_, byte) => {
  const digest = createHash("md5").update(Buffer.alloc(64, byte)).digest();
  return { high: digest.readUInt32BE(0), low: digest.readUInt32BE(4) };
});

const halves = (mask) => ({ high: Number(BigInt(mask) >> 32n), low: Number(BigInt(mask) & 0xffffffffn) });

/** The sizes of the chunks of a content. */
export function* sizes(content, average, narrow, wide) {
  const masks = [halves(narrow), halves(wide)];
  for (let start = 0; start < content.length; ) {
    const rest = content.subarray(start, start + average * 4);
    const size = end(rest, average, masks);
    yield size;
    start += size;
  }
}

function end(rest, average, [narrow, wide]) {
  let [high, low] = [0, 0];
  for (let at = average / 4; at < rest.length - (rest.length % 2); at++) {
    const gear = GEAR[rest[at]];
    const sum = (low * 2) % 2 ** 32 + gear.low;
    high = ((high << 1) + (low >>> 31) + gear.high + (sum >= 2 ** 32 ? 1 : 0)) >>> 0;
    low = sum >>> 0;
    const mask = at < average ? narrow : wide;
    if (!(high & mask.high) && !(low & mask.low)) return at;
  }
  return rest.length;
}
