/**
 * Where a text stops being JSON. JSON.parse's own messages tell the place of some errors only; this scanner runs when it has failed.
 */
export interface JsonError {
  /** From 1. */
  readonly line: number;
  /** From 1, in UTF-16 units. */
  readonly column: number;
  readonly problem: string;
}

/** Deeper than any configuration, and far from the end of the call stack. */
const MAX_DEPTH = 500;

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const word = /true|false|null/y;
const plainText = /[^"\\\u0000-\u001f]*/y;
const escape = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const space = /[ \t\n\r]*/y;

/** What is wrong with a text that JSON.parse refused, and where; undefined where nothing is. */
export function jsonError(text: string): JsonError | undefined {
  const scanner = new Scanner(text);
  if (scanner.document()) return undefined;
  const { offset, expected } = scanner;
  const before = text.slice(0, offset);
  return {
    line: before.split("\n").length,
    column: offset - before.lastIndexOf("\n"),
    problem: `expected ${expected}, got ${characterAt(text, offset)}`,
  };
}

function characterAt(text: string, offset: number): string {
  const code = text.codePointAt(offset);
  return code === undefined ? "the end of the text" : JSON.stringify(String.fromCodePoint(code));
}

/** Each method moves `offset` behind what it has found, or gives false and leaves `offset` at the error. */
class Scanner {
  readonly #text: string;
  offset = 0;
  expected = "";
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): boolean {
    return this.#value() && (this.offset === this.#text.length || this.#fail("the end of the text"));
  }

  /** A value and the white space around it. */
  #value(): boolean {
    this.#skip(space);
    if (!this.#scalarOrContainer()) return false;
    this.#skip(space);
    return true;
  }

  #scalarOrContainer(): boolean {
    switch (this.#text[this.offset]) {
      case "{":
        return this.#container("}", () => this.#member());
      case "[":
        return this.#container("]", () => this.#value());
      case '"':
        return this.#string();
      default:
        return this.#skip(word) || this.#skip(number) || this.#fail("a value");
    }
  }

  #container(closer: string, item: () => boolean): boolean {
    if (++this.#depth > MAX_DEPTH) return this.#fail(`at most ${MAX_DEPTH} levels`);
    this.offset++;
    this.#skip(space);
    if (this.#text[this.offset] !== closer) {
      if (!item()) return false;
      while (this.#text[this.offset] === ",") {
        this.offset++;
        if (!item()) return false;
      }
    }
    if (this.#text[this.offset] !== closer) return this.#fail(`"," or "${closer}"`);
    this.offset++;
    this.#depth--;
    return true;
  }

  #member(): boolean {
    this.#skip(space);
    if (this.#text[this.offset] !== '"') return this.#fail("a property's name in double quotes");
    if (!this.#string()) return false;
    this.#skip(space);
    if (this.#text[this.offset] !== ":") return this.#fail('":"');
    this.offset++;
    return this.#value();
  }

  #string(): boolean {
    this.offset++;
    while (this.#skip(plainText) || this.#skip(escape));
    if (this.#text[this.offset] !== '"') return this.#fail(this.#text[this.offset] === "\\" ? "an escape such as \\n" : "the string's end");
    this.offset++;
    return true;
  }

  /** Moves behind what matches here; false where that is nothing. */
  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.offset;
    const length = pattern.exec(this.#text)?.[0].length ?? 0;
    this.offset += length;
    return length > 0;
  }

  #fail(expected: string): false {
    this.expected = expected;
    return false;
  }
}
