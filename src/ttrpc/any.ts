import type { Any } from "../gen/google/protobuf/any.ts";

/** Packs a message as containerd does it: under its bare full name, without "type.googleapis.com/". */
export function packAny<P>(
  type: { readonly $type: string; encode(message: never): { finish(): Uint8Array }; fromPartial(partial: P): unknown },
  partial: P,
): Any {
  return { typeUrl: type.$type, value: Buffer.from(type.encode(type.fromPartial(partial) as never).finish()) };
}
