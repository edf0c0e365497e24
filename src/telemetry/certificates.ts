/**
 * Whom a TLS connection trusts. Husk's supervisors are started with a flag of Node's by which its own root certificates are not read as soon as HTTP/2 is loaded
 * (guest-agent/helper/src/programs.rs); it also has OpenSSL's trusted instead, if there are any.
 */
import { getCACertificates, setDefaultCACertificates } from "node:tls";

/** Has whoever Node trusts by itself trusted: to be called before the first TLS connection. */
export function trustAsNodeDoes(): void {
  if (!process.execArgv.includes("--use-openssl-ca")) return;
  setDefaultCACertificates([...getCACertificates("bundled"), ...getCACertificates("extra")]);
}
