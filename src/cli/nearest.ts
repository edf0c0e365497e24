/** What somebody may have meant: the known word that is fewest typing mistakes away. */

/**
 * The word of `known` nearest to `given`, through `show`; undefined where none is near enough to be worth a guess: a third of the letters
 * may be wrong, and one in any case.
 */
export function nearest(given: string, known: readonly string[], show: (word: string) => string = String): string | undefined {
  let best: string | undefined;
  let fewest = Math.max(1, Math.floor(given.length / 3)) + 1;
  for (const word of known) {
    const mistakes = distance(given.slice(0, 64), word);
    if (mistakes < fewest) [best, fewest] = [word, mistakes];
  }
  return best === undefined ? undefined : show(best);
}

/** Insertions, deletions, replacements, and swaps of neighbours between two words (optimal string alignment). */
export function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let least = Math.min(replaced, at(last, j) + 1, at(row, j - 1) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, at(beforeLast, j - 2) + 1);
      row.push(least);
    }
    [beforeLast, last] = [last, row];
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY;
}
