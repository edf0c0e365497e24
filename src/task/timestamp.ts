import type { Timestamp } from "../gen/google/protobuf/timestamp.ts";

/** A time as protobuf has it. */
export function timestamp(at: Date): Timestamp {
  const ms = at.getTime();
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
}

/** Go's zero time, year 1: what containerd takes for "not yet". An absent one is 1970 to some of its versions. */
export const never: Timestamp = { seconds: -62135596800n, nanos: 0 };
