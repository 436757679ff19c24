/**
 * Short strings as whole numbers, such as ids of messages and fingerprints of rows, for millions of them: a string of V8's and its place in a Map take 150
 * to 300 bytes, which is most of what reading an export needs; here a string takes its characters and about 17 bytes.
 */

/** A list of numbers that grows, in an array of one type. Numbers that were never set are 0. */
export class Column<A extends Int32Array | Float64Array | Uint8Array> {
  #values: A;
  readonly #make: (length: number) => A;

  constructor(make: (length: number) => A) {
    this.#make = make;
    this.#values = make(1024);
  }

  at(index: number): number {
    return this.#values[index] ?? 0;
  }

  set(index: number, value: number): void {
    this.reserve(index + 1);
    this.#values[index] = value;
  }

  reserve(length: number): void {
    if (length <= this.#values.length) return;
    const values = this.#make(Math.max(length, 2 * this.#values.length));
    values.set(this.#values);
    this.#values = values;
  }
}

export const int32s = () => new Column((length) => new Int32Array(length));
export const float64s = () => new Column((length) => new Float64Array(length));

/** Different strings, numbered from 0 in the order in which they first come. */
export class Names {
  /**
   * The strings one behind the other: for each how many bytes a character takes, 1 or 2, then its characters, the lower
   * byte first.
   */
  readonly #bytes = new Column((length) => new Uint8Array(length));
  /** Where each string begins, and where the last one ends. */
  readonly #starts = float64s();
  /** Open addressing: 0, or 1 more than the number of a string. At most half of the places are taken. */
  #places = new Int32Array(2048);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The number of a string, which is a new one if it has not come before. */
  add(text: string): number {
    const place = this.#placeOf(text);
    const known = this.#places[place] ?? 0;
    if (known !== 0) return known - 1;
    this.#places[place] = ++this.#size;
    this.#write(text);
    if (2 * this.#size > this.#places.length) this.#spread();
    return this.#size - 1;
  }

  /** undefined if the string has not come. */
  find(text: string): number | undefined {
    const known = this.#places[this.#placeOf(text)] ?? 0;
    return known === 0 ? undefined : known - 1;
  }

  textOf(number: number): string {
    const [start, end] = [this.#starts.at(number), this.#starts.at(number + 1)];
    const width = this.#bytes.at(start);
    let text = "";
    for (let at = start + 1; at < end; at += width) text += String.fromCharCode(this.#character(at, width));
    return text;
  }

  /** The place where a string stands, or would stand. */
  #placeOf(text: string): number {
    const last = this.#places.length - 1;
    for (let place = hash(text) & last; ; place = (place + 1) & last) {
      const known = this.#places[place] ?? 0;
      if (known === 0 || this.#equals(known - 1, text)) return place;
    }
  }

  #equals(number: number, text: string): boolean {
    const [start, end] = [this.#starts.at(number), this.#starts.at(number + 1)];
    const width = this.#bytes.at(start);
    if (end - start - 1 !== width * text.length) return false;
    for (let i = 0; i < text.length; i++) {
      if (this.#character(start + 1 + i * width, width) !== text.charCodeAt(i)) return false;
    }
    return true;
  }

  #character(at: number, width: number): number {
    return this.#bytes.at(at) + (width === 2 ? 256 * this.#bytes.at(at + 1) : 0);
  }

  #write(text: string): void {
    let width = 1;
    for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 255) width = 2;
    let at = this.#starts.at(this.#size - 1);
    this.#bytes.reserve(at + 1 + width * text.length);
    this.#bytes.set(at++, width);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      this.#bytes.set(at++, code & 255);
      if (width === 2) this.#bytes.set(at++, code >> 8);
    }
    this.#starts.set(this.#size, at);
  }

  /** Twice the places. */
  #spread(): void {
    const places = new Int32Array(2 * this.#places.length);
    const last = places.length - 1;
    for (let number = 0; number < this.#size; number++) {
      let place = this.#hashOf(number) & last;
      while (places[place] !== 0) place = (place + 1) & last;
      places[place] = number + 1;
    }
    this.#places = places;
  }

  #hashOf(number: number): number {
    const [start, end] = [this.#starts.at(number), this.#starts.at(number + 1)];
    const width = this.#bytes.at(start);
    let code = HASH_START;
    for (let at = start + 1; at < end; at += width) code = hashStep(code, this.#character(at, width));
    return hashEnd(code);
  }
}

/** FNV-1a over UTF-16, and murmur3's end, which spreads it over the lower bits. */
function hash(text: string): number {
  let code = HASH_START;
  for (let i = 0; i < text.length; i++) code = hashStep(code, text.charCodeAt(i));
  return hashEnd(code);
}

const HASH_START = 0x811c9dc5;

function hashStep(code: number, character: number): number {
  return Math.imul(code ^ character, 0x01000193);
}

function hashEnd(code: number): number {
  code = Math.imul(code ^ (code >>> 16), 0x85ebca6b);
  code = Math.imul(code ^ (code >>> 13), 0xc2b2ae35);
  return code ^ (code >>> 16);
}
