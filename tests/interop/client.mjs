// Drives one of the public TypeScript clients, unmodified: reads a job as JSON from stdin, writes its result as the last
// line of stdout. The clients log to stdout themselves; our line begins with a marker.
import { WebSocket } from "ws";
import { privateKeyToAccount } from "viem/accounts";
import { hexToBytes, bytesToHex } from "viem";
import { ed25519 } from "@noble/curves/ed25519";

globalThis.WebSocket = WebSocket; // a browser has one; this Node has none

const job = JSON.parse(await new Promise((resolve) => {
  let text = "";
  process.stdin.on("data", (part) => (text += part)).on("end", () => resolve(text));
}));
const account = privateKeyToAccount(job.ownerKey);
const wallet = {
  async signTypedData(from, { types, domain, primaryType, message }) {
    if (from.toLowerCase() !== account.address.toLowerCase()) throw new Error(`asked to sign for ${from}`);
    return account.signTypedData({ types, domain, primaryType, message });
  },
};
const ephSK = hexToBytes(job.ephemeralKey);
const ephPK = ed25519.getPublicKey(ephSK);
const service = { walletProviderId: "devnet", walletProviderUrl: job.url };

async function revision01() {
  const sdk = await import("sdk-0.1.0");
  const auth = new sdk.EOAAuth(account.address, wallet, ephPK, job.lifetime);
  const signer = new sdk.NetworkSigner(new sdk.WalletProviderServiceClient(service), job.t, job.n, auth);
  const made = await signer.authenticateAndCreateKey(ephPK, job.permissions);
  return { ...made, address: sdk.computeAddress(made.publicKey) };
}

async function revision03() {
  const sdk = await import("sdk-0.3.0");
  const auth = new sdk.EOAAuth(job.ephId, account.address, wallet, ephPK, job.lifetime);
  const signer = new sdk.NetworkSigner(new sdk.WalletProviderServiceClient(service), job.t, job.n, auth);
  if (job.operation === "addEphemeralKey") return await signer.addEphemeralKey(job.keyId);
  const made = await signer.generateKey(job.permissions);
  return { ...made, address: sdk.computeAddress(made.publicKey) };
}

try {
  const result = await (job.revision === "0.1" ? revision01() : revision03());
  console.log(`\n@@${JSON.stringify({ result, owner: account.address, ephPK: bytesToHex(ephPK) })}`);
} catch (error) {
  console.log(`\n@@${JSON.stringify({ error: String(error?.message ?? error) })}`);
}
process.exit(0);
