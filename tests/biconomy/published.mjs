// Drives @biconomy/account, unmodified, as an owner who grants a DAN session and as an agent who uses one: reads a job as
// JSON from stdin, writes its result as the last line of stdout, after a marker.
import { WebSocket } from "ws";
import { createWalletClient, defineChain, encodeFunctionData, http, parseAbi } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import {
  createSessionSmartAccountClient,
  createSessionWithDistributedKey,
  createSmartAccountClient,
  getDanSessionTxParams,
} from "@biconomy/account";

const job = JSON.parse(await new Promise((resolve) => {
  let text = "";
  process.stdin.on("data", (part) => (text += part)).on("end", () => resolve(text));
}));

// The gateway's address is a constant of the package.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...rest) {
    super(url.replace("wss://dan.staging.biconomy.io/v1", job.gateway), ...rest);
  }
};

// A store in memory, with the texts of its local storage.
class Storage {
  constructor(text) {
    this.data = text ? JSON.parse(text) : { merkleRoot: "", leafNodes: [] };
    this.smartAccountAddress = job.account;
  }
  async addSessionData(leaf) {
    this.data.leafNodes.push({
      ...leaf,
      sessionValidationModule: leaf.sessionValidationModule.toLowerCase(),
      sessionPublicKey: leaf.sessionPublicKey.toLowerCase(),
    });
  }
  async getAllSessionData() { return this.data.leafNodes; }
  async getSessionData({ sessionID }) { return this.data.leafNodes.find((leaf) => leaf.sessionID === sessionID); }
  async getSignerBySession() { throw new Error("no signers here"); }
  async getMerkleRoot() { return this.data.merkleRoot; }
  async setMerkleRoot(root) { this.data.merkleRoot = root; }
}

const chain = defineChain({
  id: job.chainId,
  name: "local",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [job.rpcUrl] } },
});
const common = { customChain: chain, viemChain: chain, chainId: job.chainId, bundlerUrl: job.bundlerUrl, rpcUrl: job.rpcUrl };
const storage = new Storage(job.sessions);

async function grant() {
  const signer = createWalletClient({ account: privateKeyToAccount(job.ownerKey), chain, transport: http(job.rpcUrl) });
  const owner = await createSmartAccountClient({ ...common, signer });
  const policy = [{ ...job.policy, valueLimit: 0n }];
  const { wait, userOpHash } = await createSessionWithDistributedKey({
    smartAccountClient: owner, policy, sessionStorageClient: storage, chainId: job.chainId,
  });
  const { success } = await wait();
  return { account: await owner.getAddress(), success, userOpHash, sessions: JSON.stringify(storage.data) };
}

async function use() {
  const session = { sessionStorageClient: storage, sessionIDInfo: [job.sessionId] };
  const agent = await createSessionSmartAccountClient(
    { ...common, accountAddress: job.account }, session, "DISTRIBUTED_KEY",
  );
  const data = encodeFunctionData({ abi: parseAbi(["function transfer(address,uint256)"]), args: job.transfer.map((x) => x) });
  const params = await getDanSessionTxParams(session, chain, 0);
  const { wait, userOpHash } = await agent.sendTransaction({ to: job.token, data, value: 0n }, params);
  const { success } = await wait();
  return { success, userOpHash };
}

try {
  console.log("@@" + JSON.stringify({ result: await (job.operation === "grant" ? grant() : use()) }));
} catch (error) {
  console.log("@@" + JSON.stringify({ error: String(error?.stack ?? error) }));
}
process.exit(0);
