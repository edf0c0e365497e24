import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";

/** How long a start waits for a creation that is under way, in milliseconds. */
const createdWithinMs = 20_000;

/**
 * Who starts a container while it is being created means: as soon as it is there. For a while, since a hook of the creation that does so waits for itself.
 * Throws what the creation does.
 */
export async function awaitCreation(creating: Promise<void>): Promise<void> {
  try {
    await withDeadline(creating, createdWithinMs, "the container's creation");
  } catch (error) {
    if (!(error instanceof HuskError && error.code === "deadline")) throw error;
  }
}
