/** Waits for what nothing tells of, such as the end of a process that is no child of ours (Node has no pidfd): it is looked for. */

/** Between two looks, in milliseconds. */
const lookIntervalMs = 5;

/** Whether it becomes so within so many milliseconds; resolves as soon as it is. */
export async function comesTrue(isSo: () => boolean, withinMs: number): Promise<boolean> {
  for (const end = Date.now() + withinMs; !isSo(); ) {
    if (Date.now() >= end) return false;
    await new Promise((resolve) => setTimeout(resolve, lookIntervalMs));
  }
  return true;
}
