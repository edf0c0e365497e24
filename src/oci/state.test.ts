import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import {
  become,
  canBecome,
  canDelete,
  canExec,
  canKill,
  canPause,
  canResume,
  canStart,
  demand,
  type Operation,
  type Status,
  statuses,
} from "./state.ts";

const where = (predicate: (status: Status) => boolean): Status[] => statuses.filter(predicate);

test("what each state allows", () => {
  expect(where(canStart)).toEqual(["created"]);
  expect(where(canKill)).toEqual(["created", "running", "paused"]);
  expect(where(canDelete)).toEqual(["created", "stopped"]);
  expect(where(canExec)).toEqual(["created", "running"]);
  expect(where(canPause)).toEqual(["running"]);
  expect(where(canResume)).toEqual(["paused"]);
});

describe("the words for what is not allowed", () => {
  test.each<[Operation, Status, string]>([
    ["start", "creating", "cannot start a container that is still being created: c1"],
    ["start", "running", "cannot start an already running container: c1"],
    ["start", "paused", "cannot start an already running container: c1"],
    ["start", "stopped", "cannot start a container that has stopped: c1"],
    ["kill", "stopped", "container not running: c1"],
    ["kill", "creating", "cannot kill a container that is still being created: c1"],
    ["delete", "running", "cannot delete container c1 that is not stopped: running"],
    ["delete", "paused", "cannot delete container c1 that is not stopped: paused"],
    ["exec", "creating", "cannot exec in a container that is still being created: c1"],
    ["exec", "paused", "cannot exec in a paused container: c1 (use --ignore-paused)"],
    ["exec", "stopped", "cannot exec in a stopped container: c1"],
    ["pause", "stopped", "container not running: c1: stopped"],
    ["resume", "running", "container not paused: c1: running"],
    ["update", "stopped", "container not running: c1: stopped"],
    ["ps", "stopped", "container not running: c1: stopped"],
  ])("%s while %s: %s", (operation, status, message) => {
    expect(() => demand(operation, "c1", status)).toThrow(expect.objectContaining({ code: "wrong-state", message }));
  });

  test("there are none for what is allowed", () => {
    expect(() => demand("start", "c1", "created")).not.toThrow();
  });
});

test("whatever happens to a container, nothing comes after stopped, and only a running one is ever paused", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...statuses)), (steps) => {
      let status: Status = "creating";
      const seen: Status[] = [status];
      for (const step of steps.filter((each) => canBecome(status, each) || each === "creating")) {
        if (!canBecome(status, step)) {
          const from = status;
          expect(() => become(from, step)).toThrow(HuskError);
          continue;
        }
        status = become(status, step);
        seen.push(status);
      }
      expect(seen.indexOf("stopped")).toBeOneOf([-1, seen.length - 1]);
      for (const [index, each] of seen.entries()) if (each === "paused") expect(seen[index - 1]).toBe("running");
    }),
  );
});
