// The public TypeScript client, unmodified, making keys over a gateway, or signing with one: prints its CPU time and wall time for each round.
// Its packages are those of tests/interop (npm ci there). It logs to the console by itself, so the console is silenced.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { packages, url, ownerKey, concurrency, rounds, keygens, warmUp, sign } = JSON.parse(process.argv[2]);
const resolve = createRequire(`${packages}/package.json`).resolve;
const load = (name) => import(pathToFileURL(resolve(name)));
const ws = await load("ws");
globalThis.WebSocket = ws.WebSocket ?? ws.default; // a browser has one; this Node has none
const sdk = await load("sdk-0.3.0");
const { privateKeyToAccount } = await load("viem/accounts");
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
for (const name of ["log", "debug", "info", "warn", "error"]) console[name] = () => {};

const account = privateKeyToAccount(ownerKey);
const wallet = {
  signTypedData: (_, { types, domain, primaryType, message }) =>
    account.signTypedData({ types, domain, primaryType, message }),
};

async function keygen() {
  const secret = sdk.generateEphPrivateKey();
  const auth = new sdk.EOAAuth("eph-1", account.address, wallet, sdk.getEphPublicKey(secret), 3600);
  const client = new sdk.WalletProviderServiceClient({ walletProviderId: "stub", walletProviderUrl: url });
  const made = await new sdk.NetworkSigner(client, 3, 5, auth).generateKey();
  return sdk.computeAddress(made.publicKey);
}

async function signature() {
  const auth = new sdk.EphAuth(sign.ephId, Uint8Array.from(Buffer.from(sign.ephemeralKey, "hex")));
  const client = new sdk.WalletProviderServiceClient({ walletProviderId: "devnet", walletProviderUrl: url });
  return new sdk.NetworkSigner(client, sign.t, sign.n, auth).signMessage(sign.keyId, sign.message);
}

async function load_(count) {
  let left = count;
  const worker = async () => {
    while (left-- > 0) await (sign ? signature() : keygen());
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

await load_(warmUp);
for (let round = 0; round < rounds; round++) {
  const cpu = process.cpuUsage();
  const begun = performance.now();
  await load_(keygens);
  const { user, system } = process.cpuUsage(cpu);
  print({ cpuMs: (user + system) / 1000 / keygens, wallMs: (performance.now() - begun) / keygens });
}
process.stdout.end(() => process.exit(0));
