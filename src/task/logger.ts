/** What a shim says: to containerd, whose log takes it. */
export interface Logger {
  readonly info: (message: string) => void;
  readonly warn: (message: string) => void;
}
