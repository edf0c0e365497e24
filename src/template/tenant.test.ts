import { expect, test } from "vitest";
import { isName } from "../config/setting.ts";
import { everybody, type TenantSources, tenantOf } from "./tenant.ts";

const kubernetes = { "io.kubernetes.cri.sandbox-namespace": "red" };

test.each<[string, TenantSources, string]>([
  ["nobody in particular", { setting: "shared", annotations: kubernetes, engineNamespace: "k8s.io" }, everybody],
  ["the one that the configuration names", { setting: "acme", annotations: kubernetes, engineNamespace: "k8s.io" }, "name:acme"],
  ["the pod's namespace", { setting: "namespace", annotations: kubernetes, engineNamespace: "k8s.io" }, "kubernetes:red"],
  ["the pod's namespace, with CRI-O", { setting: "namespace", annotations: { "io.kubernetes.cri-o.Namespace": "red" } }, "kubernetes:red"],
  ["the engine's namespace", { setting: "namespace", annotations: {}, engineNamespace: "moby" }, "containerd:moby"],
  ["nobody, where there is no namespace", { setting: "namespace", annotations: {} }, everybody],
  ["the one that the bundle names", { setting: "namespace", annotations: { ...kubernetes, "io.husk.tenant": "acme" } }, "name:acme"],
])("the tenant is %s", (_, sources, expected) => {
  expect(tenantOf(sources)).toBe(expected);
});

test("a tenant that cannot be named so is an error", () => {
  for (const name of ["", "a:b", "../x", "x".repeat(64)]) {
    expect(isName(name)).toBe(false);
    expect(() => tenantOf({ setting: "shared", annotations: { "io.husk.tenant": name } })).toThrow(
      `config.json: annotations["io.husk.tenant"]: expected a name such as "acme", of up to 63 letters, digits and ._-, got ${JSON.stringify(name)}`,
    );
  }
});
