/** What a network namespace has besides its links, and how it changes: the engine's name server, connections to localhost, links that come and go. */
import { execFileSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { makeNetwork, type Network } from "../harness/network.ts";
import { isHusk } from "../harness/runtime.ts";

const namespaces = ["pid", "ipc", "uts", "mount"].map((type) => ({ type }));

/** A bundle whose script runs in that namespace. */
function scriptIn(host: Host, network: Network, script: string): Bundle {
  return host.script(script, { linux: { namespaces: [...namespaces, { type: "network", path: network.path }] } });
}

/** Starts a program in the namespace. */
function startIn(host: Host, network: Network, ...command: readonly string[]) {
  return host.start("nsenter", [`--net=${network.path}`, ...command]);
}

/** Runs a script of bash's in the namespace, and answers what it prints. */
function runIn(host: Host, network: Network, script: string) {
  return startIn(host, network, "bash", "-c", script).ended();
}

/** Starts the name server, with the rules that lead port 53 to it. */
async function startNameServer(host: Host, network: Network) {
  network.ip("link set lo up");
  const server = startIn(host, network, "python3", resolve(import.meta.dirname, "../fixtures/name-server.py"));
  const [, udp, tcp] = /(\d+) (\d+)\n/.exec((await server.stdout?.until("\n")) ?? "") ?? [];
  for (const [protocol, port] of [
    ["udp", udp],
    ["tcp", tcp],
  ]) {
    const rule = `-d 127.0.0.11 -p ${protocol} --dport 53 -j DNAT --to-destination 127.0.0.11:${port}`;
    execFileSync("nsenter", [`--net=${network.path}`, "iptables", "-t", "nat", "-A", "OUTPUT", ...rule.split(" ")]);
  }
  return server;
}

/** A question for the address of a.b, with its length before it. */
const question = String.raw`\0\025\0\007\001\0\0\001\0\0\0\0\0\0\001a\001b\0\0\001\0\001`;

test("the name server at 127.0.0.11 answers, by UDP and TCP, and port 53 is free for the container's own", async ({ host }) => {
  const network = await makeNetwork(host);
  const server = await startNameServer(host, network);
  const bundle = scriptIn(
    host,
    network,
    `nslookup -type=a some.name | grep -A1 ^Name; printf '${question}' | timeout 20 nc 127.0.0.11 53 2>/dev/null | od -An -tu1 | tr -s ' \\n' ' ' | sed 's/.* 0 4 //'; echo
    timeout 1 nc -l -p 53 2>/dev/null; echo $?; timeout 20 nslookup -type=a silent.name >/dev/null; echo $?`,
  );
  writeFileSync(join(bundle.rootfs, "etc/resolv.conf"), "nameserver 127.0.0.11\noptions ndots:0\n");
  const { stdout, stderr } = await host.run(bundle);
  expect(stderr).toBe("");
  expect(stdout.trim().split(/\n+/)).toEqual(["Name:\tsome.name", "Address: 10.1.1.1", "10 2 2 2 ", "143", "1"]);
  server.signal("SIGKILL");
  await server.ended();
  await network.close();
});

test.runIf(isHusk)("without a name server in the namespace, nobody answers at 127.0.0.11", async ({ host }) => {
  const network = await makeNetwork(host);
  const { stdout } = await host.run(scriptIn(host, network, "nc 127.0.0.11 53 </dev/null; echo $?"));
  expect(stdout).toBe("1\n");
  await network.close();
});

test("who dials localhost in the namespace meets the container's program", async ({ host }) => {
  const network = await makeNetwork(host);
  network.ip("link set lo up");
  const script = `nc -l -p 7000 >/tmp/got & until grep -q :1B58 /proc/net/tcp /proc/net/tcp6; do :; done; echo ready; wait; wc -c </tmp/got
    echo from inside | nc -l -p 7001; nc -ll -p 7002 -e cat & echo listening; sleep 1000`;
  const { id, foreground } = await host.running(scriptIn(host, network, script));
  await runIn(host, network, "head -c 3000000 /dev/zero >/dev/tcp/127.0.0.1/7000");
  await foreground.stdout?.until("3000000\n");
  expect((await runIn(host, network, "while ! cat </dev/tcp/localhost/7001 2>/dev/null | grep .; do sleep 0.1; done")).stdout).toBe(
    "from inside\n",
  );
  await foreground.stdout?.until("listening\n");
  const both = "exec 3<>/dev/tcp/127.0.0.1/7002; head -c 500000 /dev/zero >&3 & head -c 500000 <&3 | wc -c";
  await host.until(async () => (await runIn(host, network, both)).stdout === "500000\n");
  const nobody = await runIn(host, network, "exec 3<>/dev/tcp/127.0.0.1/7003 && cat <&3");
  expect(nobody).toMatchObject({ status: 1, stderr: expect.stringMatching(/reset|refused/) });
  await host.ok("kill", id, "KILL");
  await foreground.ended();
  expect((await runIn(host, network, "exec 3<>/dev/tcp/127.0.0.1/7002")).stderr).toMatch(/refused/);
  await network.close();
});

test("links that come and go while the container runs do so in it", async ({ host }) => {
  const network = await makeNetwork(host);
  const { id, foreground } = await host.running(scriptIn(host, network, "echo ready; sleep 1000"));
  const inside = (command: string) => host.ok("exec", id, "sh", "-c", command);
  network.ip(`link add eth1 mtu 9000 address 02:00:00:00:00:11 type veth peer name eth1 netns ${network.neighbour.pid}`);
  execFileSync("nsenter", [`--net=/proc/${network.neighbour.pid}/ns/net`, "ip", "address", "add", "10.94.7.1/24", "dev", "eth1"]);
  execFileSync("nsenter", [`--net=/proc/${network.neighbour.pid}/ns/net`, "ip", "link", "set", "eth1", "mtu", "9000", "up"]);
  for (const words of ["address add 10.94.7.2/24 dev eth1", "address add fd94::2/64 dev eth1 nodad", "link set eth1 up"]) network.ip(words);
  network.ip("route add 10.95.0.0/16 via 10.94.7.1");
  await host.until(async () => (await inside("ip route 2>&1")).includes("10.95.0.0/16 via 10.94.7.1 dev eth1"), 20_000);
  const shown = await inside("ip address show eth1");
  for (const part of ["mtu 9000", "02:00:00:00:00:11", "10.94.7.2/24", "fd94::2/64"]) expect(shown).toContain(part);
  expect(await inside("ping -c 1 -s 8000 -q 10.94.7.1")).toContain("1 packets received");

  network.ip("address add 10.94.7.3/24 dev eth1");
  await host.until(async () => (await inside("ip address show eth1")).includes("10.94.7.3/24"), 20_000);

  network.ip("link delete eth1");
  await host.until(async () => !(await inside("ip -o link")).includes("eth1"), 30_000);
  expect(await inside("ping -c 1 -q 10.93.7.1")).toContain("1 packets received");
  if (isHusk) await host.until(() => !network.ip("-o link").includes("husk1"), 20_000);
  await host.ok("kill", id, "KILL");
  await foreground.ended();
  expect(network.ip("-o link").match(/^\d+: [^:@]+/gm)).toEqual([expect.stringMatching(/lo$/), expect.stringMatching(/eth0$/)]);
  await network.close();
});

/** Runs a command of ip(8) at the neighbour's. */
function ipOutside(network: Network, args: string): void {
  execFileSync("nsenter", [`--net=/proc/${network.neighbour.pid}/ns/net`, "ip", ...args.split(" ")]);
}

test("every kind of link that reaches outside carries packets: macvlan, macvtap, a bridge with its ports", async ({ host }) => {
  const network = await makeNetwork(host);
  const { pid } = network.neighbour;
  for (const [kind, net] of [
    ["macvlan", 4],
    ["macvtap", 5],
  ] as const) {
    ipOutside(network, `link add low${net} type veth peer name far${net}`);
    for (const words of [`link set low${net} up`, `address add 10.94.${net}.1/24 dev far${net}`, `link set far${net} up`])
      ipOutside(network, words);
    ipOutside(network, `link add link low${net} name up${net} type ${kind} mode bridge`);
    ipOutside(network, `link set up${net} name ${kind} netns ${network.holder.pid}`);
    for (const words of [`address add 10.94.${net}.2/24 dev ${kind}`, `link set ${kind} up`]) network.ip(words);
  }
  network.ip(`link add port type veth peer name far6 netns ${pid}`);
  for (const words of ["address add 10.94.6.1/24 dev far6", "link set far6 up"]) ipOutside(network, words);
  for (const words of ["link add br0 type bridge", "link set port up master br0", "address add 10.94.6.2/24 dev br0", "link set br0 up"])
    network.ip(words);
  const script = "for net in 4 5 6; do ping -c 1 -q -W 20 10.94.$net.1 | grep received; done; ls /sys/class/net";
  const { stdout, stderr } = await host.run(scriptIn(host, network, script));
  const links = isHusk ? ["br0", "eth0", "lo", "macvlan", "macvtap"] : ["br0", "eth0", "lo", "macvlan", "macvtap", "port"];
  expect({ stderr, lines: stdout.trim().split(/\s*\n/) }).toEqual({
    stderr: "",
    lines: [...Array(3).fill("1 packets transmitted, 1 packets received, 0% packet loss"), ...links],
  });
  await network.close();
});

test.runIf(isHusk)("a link that a guest cannot have is named, and nothing is left", async ({ host }) => {
  for (const [words, message] of [
    [["tuntap add tun0 mode tun", "link set tun0 up"], "tun0 is no Ethernet link, which is all that a guest can have"],
    [
      ["link add link eth0 name net1 type macvlan"],
      "net1 is a macvlan on top of the same network namespace, which a guest cannot have (from outside of it, it can)",
    ],
  ] as const) {
    const network = await makeNetwork(host);
    for (const each of words) network.ip(each);
    const before = network.ip("-o link");
    const { status, stdout, stderr } = await host.run(scriptIn(host, network, "echo ran"));
    expect({ status, stdout, stderr }).toEqual({ status: 125, stdout: "", stderr: `husk: ${message}\n` });
    expect(network.ip("-o link")).toBe(before);
    await network.close();
  }
});

test.runIf(isHusk)("a namespace whose links another virtual machine has is refused, and that one goes on", async ({ host }) => {
  const network = await makeNetwork(host);
  const { id, foreground } = await host.running(scriptIn(host, network, "echo ready; sleep 1000"));
  // The kernel tells a link's state some time after it has changed.
  const look = () => [network.ip("-o link").replace(/state \w+/g, ""), network.tc("qdisc show")];
  const before = look();
  // Of another root, nobody knows the first one's sandbox.
  const words = ["--root", host.path("other"), "run", "--bundle", scriptIn(host, network, "echo ran").path, host.name()];
  expect(await host.launch(words).ended()).toEqual({
    status: 125,
    stdout: "",
    stderr: expect.stringMatching(/^husk: the network namespace has a link husk0 already: its links are those of another virtual machine/),
  });
  expect(look()).toEqual(before);
  expect(await host.ok("exec", id, "ping", "-c", "1", "-q", "-W", "20", "10.93.7.1")).toContain("1 packets received");
  await host.ok("kill", id, "KILL");
  await foreground.ended();
  await network.close();
});

test.runIf(isHusk)("a supervisor that is killed leaves nothing in the namespace", async ({ host }) => {
  const network = await makeNetwork(host);
  network.ip("link set lo up");
  const before = network.ip("-o link");
  const { id, foreground } = await host.running(scriptIn(host, network, "echo ready; sleep 1000"));
  const { supervisor } = JSON.parse(execFileSync("cat", [join(host.root, id, "state.json")], { encoding: "utf8" })) as {
    supervisor: { pid: number };
  };
  expect(readdirSync(host.root).filter((name) => name.endsWith(`forward-${supervisor.pid}`))).toHaveLength(1);
  process.kill(supervisor.pid, "SIGKILL");
  await foreground.ended();
  await host.ok("delete", "--force", id);
  expect(network.ip("-o link").replace(/state \w+/g, "")).toBe(before.replace(/state \w+/g, ""));
  expect((await runIn(host, network, "exec 3<>/dev/tcp/127.0.0.1/7002")).stderr).toMatch(/refused/);
  await network.close();
});
