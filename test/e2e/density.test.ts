/** Many containers: at once, and one after another. The leak check at each test's end is what these are about. */
import { expect } from "vitest";
import { test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";

/** How many are run one after another: HUSK_TEST_RUNS=100 for the whole of it. */
const runs = Number(process.env["HUSK_TEST_RUNS"] ?? 20);

test("10 at once, each with its own bundle, streams and end", async ({ host }) => {
  const numbers = Array.from({ length: 10 }, (_, index) => index);
  const results = await Promise.all(
    numbers.map((n) => host.run(host.script(`cat; echo ${n}; hostname; exit ${n}`, { hostname: `host-${n}` }))),
  );
  expect(results).toEqual(numbers.map((n) => ({ status: n, stdout: `${n}\nhost-${n}\n`, stderr: "" })));
});

test(
  `${runs} one after another leave the host as it was`,
  async ({ host }) => {
    const bundle = host.script("echo $((6 * 7))");
    for (let run = 0; run < runs; run++) expect(await host.run(bundle)).toEqual({ status: 0, stdout: "42\n", stderr: "" });
  },
  60_000 + runs * 10_000,
);

test("one id again and again, created, started and deleted", async ({ host }) => {
  const bundle = host.script("exit 0");
  for (let round = 0; round < 3; round++) {
    const program = host.launch(["create", "--bundle", bundle.path, "same"]);
    expect(await program.exited()).toBe(0);
    await host.ok("start", "same");
    await program.ended();
    await host.until(async () => (await host.state("same")).status === "stopped");
    await host.ok("delete", "same");
  }
});

// With runc they can make each other fail.
test.runIf(isHusk)("two creations of one id at once: one of them wins", async ({ host }) => {
  const bundle = host.script("exit 0");
  const attempts = [1, 2, 3].map(() => host.launch(["create", "--bundle", bundle.path, "same"]));
  const statuses = await Promise.all(attempts.map((attempt) => attempt.exited()));
  expect(statuses.filter((status) => status === 0)).toHaveLength(1);
  await host.ok("delete", "--force", "same");
  await Promise.all(attempts.map((attempt) => attempt.ended()));
});
