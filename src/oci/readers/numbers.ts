/**
 * The specification's numbers. Its 64-bit ones come as bigints where a double could not hold them (see ../json.ts).
 */
import { integer, type Reader, wrong } from "../../narrow.ts";
import type { Int64 } from "../types.ts";

export const uint16 = integer(0, 0xffff);
export const uint32 = integer(0, 0xffff_ffff);
export const int32 = integer(-0x8000_0000, 0x7fff_ffff);

/** A user's or group's id: the last number means "none" to the kernel. */
export const userId = integer(0, 0xffff_fffe);

export const int64: Reader<Int64> = wide(-(2n ** 63n), 2n ** 63n - 1n, "a whole number of 64 bits");
export const uint64: Reader<Int64> = wide(0n, 2n ** 64n - 1n, "a whole number of 64 bits, not negative");

function wide(min: bigint, max: bigint, expected: string): Reader<Int64> {
  return (value, place) => {
    const whole = typeof value === "bigint" || (typeof value === "number" && Number.isSafeInteger(value));
    return whole && value >= min && value <= max ? value : wrong(place, expected, value);
  };
}
