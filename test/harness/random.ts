/** Bytes without any pattern, cheap to make and to make again: a counter, encrypted. */
import { type Cipheriv, createCipheriv, randomBytes } from "node:crypto";

const zeros = Buffer.alloc(256 * 1024);

export class RandomBytes {
  readonly #key: Buffer;
  readonly #cipher: Cipheriv;

  constructor(key: Buffer = randomBytes(16)) {
    this.#key = key;
    this.#cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
  }

  /** The same bytes from the beginning. */
  again(): RandomBytes {
    return new RandomBytes(this.#key);
  }

  next(length: number): Buffer {
    const parts: Buffer[] = [];
    for (let left = length; left > 0; left -= zeros.length)
      parts.push(this.#cipher.update(zeros.subarray(0, Math.min(left, zeros.length))));
    return Buffer.concat(parts);
  }
}
