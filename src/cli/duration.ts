/** Times as programs in Go take them: "5s", "1m30s", "250ms". */
import { HuskError } from "../errors.ts";

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The longest that a timer of Node can wait, in milliseconds. */
const longestMs = 2 ** 31 - 1;

/** Milliseconds. Throws `invalid-argument` where the text is no time, or none that can be waited for. */
export function parseDuration(flag: string, text: string): number {
  const parts = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text) ? [...text.matchAll(/([\d.]+)(ms|s|m|h)/g)] : [];
  const total = Math.round(parts.reduce((sum, [, number, unit = ""]) => sum + Number(number) * (unitMs[unit] ?? 0), 0));
  if (total > 0 && total <= longestMs) return total;
  throw new HuskError("invalid-argument", `${flag}: expected a time such as 500ms, 5s or 1m30s, got ${JSON.stringify(text.slice(0, 64))}`);
}
