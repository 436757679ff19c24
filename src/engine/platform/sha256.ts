/**
 * SHA-256 (FIPS 180-4) piece by piece, for hosts such as browsers, whose own takes only a whole message at once.
 */
import type { Sha256 } from "./platform.ts";

const blockBytes = 64;
const [roundConstants, initialState] = constants();

/** An empty hash; its `digest` may be called once. */
export function sha256(): Sha256 {
  const state = Int32Array.from(initialState);
  const block = new Uint8Array(blockBytes);
  let filled = 0;
  let length = 0;
  const feed = (bytes: Uint8Array) => {
    for (let offset = 0; offset < bytes.length; ) {
      const taken = bytes.subarray(offset, offset + blockBytes - filled);
      block.set(taken, filled);
      offset += taken.length;
      filled += taken.length;
      if (filled < blockBytes) break;
      compress(state, new DataView(block.buffer));
      filled = 0;
    }
  };
  return {
    update(bytes) {
      length += bytes.length;
      feed(bytes);
    },
    digest() {
      // A one bit, zeros, and the length in bits as 64 bits that end a block.
      const zeros = (2 * blockBytes - 9 - filled) % blockBytes;
      const end = new Uint8Array(1 + zeros + 8);
      end[0] = 0x80;
      new DataView(end.buffer).setBigUint64(1 + zeros, BigInt(length) * 8n);
      feed(end);
      return [...state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
    },
  };
}

function compress(state: Int32Array, block: DataView): void {
  const words = new Int32Array(64);
  for (let t = 0; t < 16; t++) words[t] = block.getInt32(4 * t);
  const word = (t: number) => words[t] ?? 0;
  for (let t = 16; t < 64; t++) {
    const [w15, w2] = [word(t - 15), word(t - 2)];
    const small0 = rotate(w15, 7) ^ rotate(w15, 18) ^ (w15 >>> 3);
    const small1 = rotate(w2, 17) ^ rotate(w2, 19) ^ (w2 >>> 10);
    words[t] = word(t - 16) + small0 + word(t - 7) + small1;
  }
  let [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = state;
  for (let t = 0; t < 64; t++) {
    const big1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const first = (h + big1 + ((e & f) ^ (~e & g)) + (roundConstants[t] ?? 0) + word(t)) | 0;
    const big0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const second = (big0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  for (const [i, value] of [a, b, c, d, e, f, g, h].entries()) state[i] = (state[i] ?? 0) + value;
}

function rotate(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

/** The first 32 bits of the fractional parts of the cube roots of the first 64 primes, and of 8 square roots. */
function constants(): [rounds: Int32Array, initial: Int32Array] {
  const primes: number[] = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  const fraction = (prime: number, root: bigint) => {
    // floor(prime^(1/root) 2^32) as an integer root, since doubles have too few bits to be sure.
    const target = BigInt(prime) << (32n * root);
    let low = 0n;
    let high = 1n << 40n;
    while (high - low > 1n) {
      const middle = (low + high) >> 1n;
      if (middle ** root <= target) low = middle;
      else high = middle;
    }
    return Number(BigInt.asIntN(32, low));
  };
  return [
    Int32Array.from(primes, (prime) => fraction(prime, 3n)),
    Int32Array.from(primes.slice(0, 8), (prime) => fraction(prime, 2n)),
  ];
}
