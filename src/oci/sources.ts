/**
 * What the host has at a bind mount's source, as `bundle.ts` finds it: the rest of this folder judges it without touching the disk.
 */

export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

export type Source =
  | { readonly kind: "missing" }
  | { readonly kind: "unreadable"; readonly reason: string }
  /**
   * `mountOptions`: of the host's mount that it is in, those that take something away (`mountOptions` of `propagation.ts`). `tmpfsBytes`: the size of the tmpfs that the folder is in, where it is in one. `shared`: asked for and true where the host's mount passes on what is mounted
   * in it. `mountsBelow`: asked for, or the host's mount is read-only, and true where something is mounted below it.
   */
  | {
      readonly kind: "folder";
      readonly realPath: string;
      readonly mountOptions?: readonly string[];
      readonly tmpfsBytes?: number;
      readonly shared?: boolean;
      readonly mountsBelow?: boolean;
    }
  | { readonly kind: "file"; readonly realPath: string; readonly mountOptions?: readonly string[]; readonly shared?: boolean }
  | ({ readonly kind: "character-device"; readonly realPath: string } & DeviceNumber)
  | ({ readonly kind: "block-device"; readonly realPath: string } & DeviceNumber)
  | { readonly kind: "socket"; readonly realPath: string }
  | { readonly kind: "fifo"; readonly realPath: string };

/** By the index of the mount; mounts that are no bind mounts have none. */
export type Sources = ReadonlyMap<number, Source>;
