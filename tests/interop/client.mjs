// Drives one of the public TypeScript clients, unmodified: reads a job as JSON from stdin, writes its result as the last
// line of stdout. The clients log to stdout themselves; our line begins with a marker.
import { WebSocket } from "ws";
import { privateKeyToAccount } from "viem/accounts";
import { hexToBytes, bytesToHex, hashMessage, recoverMessageAddress, recoverTypedDataAddress } from "viem";
import { getUserOperationHash } from "viem/account-abstraction";
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

// What a caller of these clients signs: a user operation, and from 0.3 on a personal message and typed data as well.
async function signed(signer, keyId, wrap) {
  const one = async (message, requestType) => {
    const made = await signer.authenticateAndSign?.(keyId, message) ?? await signer.signMessage(keyId, message);
    return `0x${made.sign}${made.recid === 0 ? "1b" : "1c"}`;
  };
  const said = {};
  for (const [name, { message, requestType }] of Object.entries(job.messages)) {
    said[name] = await one(wrap ? JSON.stringify({ message, requestType }) : message);
  }
  return said;
}

// viem's word for whose signatures they are.
async function recovered(signatures) {
  const found = {};
  for (const [name, { message, requestType }] of Object.entries(job.messages)) {
    const signature = signatures[name];
    if (requestType === "EIP191") {
      found[name] = await recoverMessageAddress({ message: { raw: `0x${message}` }, signature });
    } else if (requestType === "EIP712") {
      found[name] = await recoverTypedDataAddress({ ...JSON.parse(message), signature });
    } else {
      const { userOperation, entryPointVersion, entryPointAddress, chainId } = JSON.parse(message);
      const quantities = ["nonce", "callGasLimit", "verificationGasLimit", "preVerificationGas", "maxFeePerGas",
        "maxPriorityFeePerGas", "paymasterVerificationGasLimit", "paymasterPostOpGasLimit"];
      for (const name of quantities) if (name in userOperation) userOperation[name] = BigInt(userOperation[name]);
      const hash = getUserOperationHash({
        userOperation, chainId, entryPointAddress, entryPointVersion: entryPointVersion.slice(1, 4),
      });
      found[name] = await recoverMessageAddress({ message: { raw: hash }, signature });
    }
  }
  return found;
}

async function sign() {
  const client = (sdk) => new sdk.WalletProviderServiceClient(service);
  if (job.revision === "0.1") {
    const sdk = await import("sdk-0.1.0");
    const auth = new sdk.EphAuth(job.owner ?? account.address, ephSK);
    const signatures = await signed(new sdk.NetworkSigner(client(sdk), job.t, job.n, auth), job.keyId, false);
    return { signatures, recovered: await recovered(signatures) };
  }
  const sdk = await import("sdk-0.3.0");
  const auth = new sdk.EphAuth(job.ephId, ephSK);
  const signatures = await signed(new sdk.NetworkSigner(client(sdk), job.t, job.n, auth), job.keyId, true);
  return { signatures, recovered: await recovered(signatures) };
}

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
  const operations = { sign, verify: async () => ({ recovered: await recovered(job.signatures) }) };
  const result = await (operations[job.operation] ?? (job.revision === "0.1" ? revision01 : revision03))();
  console.log(`\n@@${JSON.stringify({ result, owner: account.address, ephPK: bytesToHex(ephPK) })}`);
} catch (error) {
  console.log(`\n@@${JSON.stringify({ error: String(error?.message ?? error) })}`);
}
process.exit(0);
