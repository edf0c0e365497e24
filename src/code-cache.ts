/** What a program and its loader have in common. */

/** The event of `process` at which the loader leaves V8's code cache, where it is to leave one, instead of at the end: V8's flags are about to change. */
export const leaveCodeCache = "husk:leave-code-cache";
