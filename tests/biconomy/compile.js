// Compiles Biconomy's contracts as their deployments were made: prints {name: {bytecode, runtime}}.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const PACKAGE = "node_modules/@biconomy-devx/account-contracts-v2/";
const WANTED = {
  "contracts/smart-account/SmartAccount.sol": ["SmartAccount"],
  "contracts/smart-account/factory/SmartAccountFactory.sol": ["SmartAccountFactory"],
  "contracts/smart-account/handler/DefaultCallbackHandler.sol": ["DefaultCallbackHandler"],
  "contracts/smart-account/modules/EcdsaOwnershipRegistryModule.sol": ["EcdsaOwnershipRegistryModule"],
  "contracts/smart-account/modules/SessionKeyManagerModule.sol": ["SessionKeyManager"],
  "contracts/smart-account/modules/SessionValidationModules/ERC20SessionValidationModule.sol": [
    "ERC20SessionValidationModule",
  ],
  "StandIns.sol": ["AbiModule", "OneOwner", "Router", "SeveralOwners", "Token"],
};

const read = (name) => {
  const places = [name.startsWith("contracts/smart-account/") ? PACKAGE + name : name, "node_modules/" + name];
  const found = places.map((place) => path.join(__dirname, place)).find((place) => fs.existsSync(place));
  return found ? { contents: fs.readFileSync(found, "utf8") } : { error: "not found: " + name };
};

const sources = {};
const outputSelection = {};
for (const [name, contracts] of Object.entries(WANTED)) {
  sources[name] = { content: read(name).contents };
  outputSelection[name] = {};
  for (const contract of contracts) {
    outputSelection[name][contract] = ["evm.bytecode.object", "evm.deployedBytecode.object"];
  }
}
const settings = {
  optimizer: { enabled: true, runs: 800 },
  viaIR: true,
  metadata: { useLiteralContent: true },
  outputSelection,
};
const output = JSON.parse(
  solc.compile(JSON.stringify({ language: "Solidity", sources, settings }), { import: read }),
);
const errors = (output.errors || []).filter((error) => error.severity === "error");
if (errors.length) throw new Error(errors.map((error) => error.formattedMessage).join("\n"));
const found = {};
for (const [name, contracts] of Object.entries(WANTED)) {
  for (const contract of contracts) {
    const { bytecode, deployedBytecode } = output.contracts[name][contract].evm;
    found[contract] = { bytecode: "0x" + bytecode.object, runtime: "0x" + deployedBytecode.object };
  }
}
process.stdout.write(JSON.stringify(found));
