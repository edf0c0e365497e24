/** Whether containers are in a guest. What their processes have mapped of the host's folders is written with their end: without any, only disks could lose something. */
export class Occupancy {
  #living = 0;
  #wasLast = false;

  /** To be told of each container before it is made, or as it is taken over. */
  begins(): void {
    this.#living += 1;
  }

  /** To be told once it has ended. `isLast`: as `ProcessOutcome` has it. */
  hasEnded(isLast: boolean): void {
    this.#living -= 1;
    this.#wasLast = isLast;
  }

  /** Whether every container has ended, and the guest has said of the last one that no process of any was left. */
  get isOver(): boolean {
    return this.#living === 0 && this.#wasLast;
  }
}
