import { describe, expect, it } from "vitest";
import { DbusClient, systemBus } from "./dbus.ts";
import { ScriptedBus } from "./scripted-bus.ts";
import { DbusCallError } from "./types.ts";

const remote = { destination: "org.example", path: "/org/example", interface: "org.example.It" };

describe("DbusClient", () => {
  it("says who it is, calls, and gets its answers whatever their order", async () => {
    const held: (() => void)[] = [];
    await using bus = await ScriptedBus.open((call, peer) => {
      if (call.member === "First") {
        held.push(() => peer.signal("org.example.It", "Tick", "u", [1]));
        return { signature: "s", body: ["first"] };
      }
      return { signature: "as", body: [call.body] };
    });
    const signals: unknown[] = [];
    const ticked = Promise.withResolvers<void>();
    using client = await DbusClient.connect(bus.path, ({ member, body }) => {
      signals.push([member, body]);
      ticked.resolve();
    });
    const [first, second] = await Promise.all([client.call(remote, "First"), client.call(remote, "Second", "ss", ["a", "b"])]);
    expect([first, second]).toEqual([["first"], [["a", "b"]]]);
    expect(bus.calls.map(({ destination, path, interface: from, member }) => ({ destination, path, from, member }))).toEqual(
      ["First", "Second"].map((member) => ({ destination: "org.example", path: "/org/example", from: "org.example.It", member })),
    );
    expect(bus.greeting).toBe(`\0AUTH EXTERNAL ${Buffer.from(String(process.getuid?.())).toString("hex")}\r\n`);
    for (const release of held) release();
    await ticked.promise;
    expect(signals).toEqual([["Tick", [1]]]);
  });

  it("tells an error by its name and its text", async () => {
    await using bus = await ScriptedBus.open(() => ({ error: "org.example.No", text: "not today" }));
    using client = await DbusClient.connect(bus.path, () => {});
    const failure = await client.call(remote, "Try").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(DbusCallError);
    expect(failure).toMatchObject({ errorName: "org.example.No", message: "not today" });
  });

  it("rejects what waits when the bus hangs up, when nonsense comes, and what is called afterwards", async () => {
    await using bus = await ScriptedBus.open((call, peer) => {
      if (call.member === "HangUp") peer.hangUp();
      else peer.send(Buffer.from("nonsense that is longer than a header"));
      return undefined;
    });
    for (const [member, message] of [
      ["HangUp", "the bus hung up"],
      ["Babble", "the peer does not speak D-Bus in little-endian"],
    ] as const) {
      using client = await DbusClient.connect(bus.path, () => {});
      await expect(client.call(remote, member)).rejects.toThrow(message);
      await expect(client.call(remote, "More")).rejects.toThrow(message);
    }
  });

  it("is rejected where it is not taken, or nobody is there", async () => {
    await using bus = await ScriptedBus.open(() => undefined, "REJECTED EXTERNAL\r\n");
    await expect(DbusClient.connect(bus.path, () => {})).rejects.toThrow('the bus does not take us: "REJECTED EXTERNAL"');
    await expect(DbusClient.connect(`${bus.path}.none`, () => {})).rejects.toThrow("ENOENT");
  });
});

it("finds the system's bus by the environment's address", () => {
  expect(systemBus(undefined)).toBe("/run/dbus/system_bus_socket");
  expect(systemBus("")).toBe("/run/dbus/system_bus_socket");
  expect(systemBus("tcp:host=localhost;unix:guid=00,path=/run/my%20bus")).toBe("/run/my bus");
});
