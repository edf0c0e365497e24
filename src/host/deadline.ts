import { HuskError } from "../errors.ts";

/**
 * Waits for `promise`, at most `milliseconds`; then rejects with code `deadline` and "WHAT did not end within N ms".
 * The promise itself goes on: whoever made it must bound or abort it.
 */
export async function withDeadline<T>(promise: Promise<T>, milliseconds: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new HuskError("deadline", `${what} did not end within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
