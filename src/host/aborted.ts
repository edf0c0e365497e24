/** An abort as something to race with. */

/** Rejects with the signal's reason as soon as it aborts, be that before the call. A rejection that nobody awaits is no unhandled one. */
export function whenAborted(signal: AbortSignal): Promise<never> {
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    // A signal tells of its abort once: who listens later hears nothing.
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  aborted.catch(() => {});
  return aborted;
}
