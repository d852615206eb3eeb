// Drives @biconomy/abstractjs and viem, unmodified: reads a job as JSON from stdin, writes its result as the last line of
// stdout, after a marker.
import { createPublicClient, defineChain, http, toHex } from "viem";
import { createBundlerClient, getUserOperationHash } from "viem/account-abstraction";
import { privateKeyToAccount } from "viem/accounts";
import { hashAuthorization } from "viem/utils";
import { MEEVersion, getMEEVersion, toNexusAccount } from "@biconomy/abstractjs";
import { getOwnableValidator } from "@rhinestone/module-sdk";

const job = JSON.parse(await new Promise((resolve) => {
  let text = "";
  process.stdin.on("data", (part) => (text += part)).on("end", () => resolve(text));
}));
const big = (value) => BigInt(value);
const chain = defineChain({
  id: job.chainId,
  name: "local",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [job.rpcUrl] } },
});
const owner = privateKeyToAccount(job.ownerKey);
const calls = job.calls.map((call) => ({ ...call, value: big(call.value) }));

async function open() {
  const version = { ...getMEEVersion(MEEVersion[job.version]), ...job.contracts };
  const chainConfiguration = { chain, transport: http(job.rpcUrl), version, versionCheck: false };
  return toNexusAccount({ signer: owner, chainConfiguration, index: big(job.index) });
}

async function bytes() {
  const account = await open();
  const { nonceKey } = await account.getNonceWithKey(await account.getAddress(), { key: big(job.lane) });
  const { nonceKey: sessionNonceKey } = await account.getNonceWithKey(await account.getAddress(), {
    key: big(job.lane), moduleAddress: job.sessionValidator,
  });
  const ownable = getOwnableValidator({ threshold: 1, owners: [job.sessionKey] });
  const operation = Object.fromEntries(
    Object.entries(job.operation).map(([name, value]) => [name, job.numbers.includes(name) ? big(value) : value]),
  );
  const { chainId, address, nonce } = job.authorisation;
  const authorization = await owner.signAuthorization({ chainId, address, nonce });
  return {
    address: await account.getAddress(),
    initCode: account.getInitCode(),
    single: await account.encodeCalls([calls[0]]),
    batch: await account.encodeCalls(calls),
    nonceKey: toHex(nonceKey),
    sessionNonceKey: toHex(sessionNonceKey),
    session: { module: ownable.module, data: ownable.initData },
    userOpHash: getUserOperationHash({
      chainId: job.chainId, entryPointAddress: job.entryPoint, entryPointVersion: "0.7", userOperation: operation,
    }),
    signature: await account.signUserOperation(operation), // of the account, whatever the operation's sender is
    authorisationHash: hashAuthorization({ chainId, address, nonce }),
    authorisation: { r: authorization.r, s: authorization.s, yParity: authorization.yParity },
    transaction: await owner.signTransaction({
      type: "eip7702", chainId, nonce: nonce - 1, to: owner.address, data: job.calls[0].data, value: 0n,
      gas: 100000n, maxFeePerGas: 3000000000n, maxPriorityFeePerGas: 7n, authorizationList: [authorization],
    }),
  };
}

async function send() {
  const account = await open();
  const bundler = createBundlerClient({
    account, chain, transport: http(job.bundlerUrl), client: createPublicClient({ chain, transport: http(job.rpcUrl) }),
  });
  const hash = await bundler.sendUserOperation({ calls, maxFeePerGas: big(job.price), maxPriorityFeePerGas: 1n });
  const { success } = await bundler.waitForUserOperationReceipt({ hash });
  return { address: await account.getAddress(), success };
}

try {
  console.log("@@" + JSON.stringify({ result: await (job.do === "send" ? send() : bytes()) }));
} catch (error) {
  console.log("@@" + JSON.stringify({ error: String(error?.stack ?? error) }));
}
process.exit(0);
