// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

// Small contracts in the place of deployed ones whose sources are in no package: the module that checks sessions by the
// arguments of a call, and the router whose signature is over the operation's hash. And something for sessions to move.

import {UserOperation} from "@account-abstraction/contracts/interfaces/UserOperation.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

interface Checks {
    function validateSessionParams(address, uint256, bytes calldata, bytes calldata, bytes calldata)
        external
        returns (address);
}

interface Manages {
    function validateSessionKey(address, uint48, uint48, address, bytes memory, bytes32[] memory) external;
}

function signer(bytes32 operation, bytes memory signature) pure returns (address) {
    return ECDSA.recover(ECDSA.toEthSignedMessageHash(operation), signature);
}

contract AbiModule {
    function validateSessionUserOp(
        UserOperation calldata operation,
        bytes32 operationHash,
        bytes calldata keyData,
        bytes calldata signature
    ) external view returns (bool) {
        bytes4 selector = bytes4(operation.callData[0:4]);
        require(selector == 0x0000189a || selector == 0xb61d27f6, "not a single call");
        (address target, uint256 value, bytes memory data) =
            abi.decode(operation.callData[4:], (address, uint256, bytes));
        return this.validateSessionParams(target, value, data, keyData, "") == signer(operationHash, signature);
    }

    function validateSessionParams(
        address target,
        uint256 value,
        bytes calldata data,
        bytes calldata keyData,
        bytes calldata
    ) external pure returns (address) {
        require(target == address(bytes20(keyData[20:40])), "target");
        require(bytes4(data[0:4]) == bytes4(keyData[40:44]), "function");
        require(value <= uint128(bytes16(keyData[44:60])), "value");
        uint256 count = uint16(bytes2(keyData[60:62]));
        for (uint256 i = 0; i < count; i++) {
            bytes calldata rule = keyData[62 + 35 * i:62 + 35 * (i + 1)];
            uint256 at = 4 + uint16(bytes2(rule[0:2]));
            uint256 found = uint256(bytes32(data[at:at + 32]));
            uint256 wanted = uint256(bytes32(rule[3:35]));
            uint8 condition = uint8(rule[2]);
            bool holds = condition == 0 ? found == wanted : condition == 1 ? found <= wanted : condition == 2
                ? found < wanted
                : condition == 3 ? found >= wanted : condition == 4 ? found > wanted : found != wanted;
            require(holds && condition < 6, "rule");
        }
        return address(bytes20(keyData[0:20]));
    }
}

contract Router {
    struct Session {
        uint48 validUntil;
        uint48 validAfter;
        address module;
        bytes keyData;
        bytes32[] proof;
        bytes callData;
    }

    function validateUserOp(UserOperation calldata operation, bytes32 operationHash) external returns (uint256) {
        require(bytes4(operation.callData[0:4]) == 0x00004680, "not a batch");
        (bytes memory moduleSignature,) = abi.decode(operation.signature, (bytes, address));
        (address manager, Session[] memory sessions, bytes memory signature) =
            abi.decode(moduleSignature, (address, Session[], bytes));
        (address[] memory targets, uint256[] memory values, bytes[] memory datas) =
            abi.decode(operation.callData[4:], (address[], uint256[], bytes[]));
        require(sessions.length == targets.length, "lengths");
        address key = signer(operationHash, signature);
        uint48 until = type(uint48).max;
        uint48 afterwards;
        for (uint256 i = 0; i < sessions.length; i++) {
            Session memory one = sessions[i];
            Manages(manager).validateSessionKey(
                operation.sender, one.validUntil, one.validAfter, one.module, one.keyData, one.proof
            );
            address wanted =
                Checks(one.module).validateSessionParams(targets[i], values[i], datas[i], one.keyData, one.callData);
            if (wanted != key) return 1;
            if (one.validUntil != 0 && one.validUntil < until) until = one.validUntil;
            if (one.validAfter > afterwards) afterwards = one.validAfter;
        }
        return (uint256(afterwards) << 208) | (uint256(until) << 160);
    }
}

contract Token is ERC20("Token", "T") {
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

// The modules that check the operations of an ERC-7579 account, with the functions and the data of K1Validator (Biconomy)
// and OwnableValidator (Rhinestone), whose sources are in no package either.

struct PackedUserOperation {
    address sender;
    uint256 nonce;
    bytes initCode;
    bytes callData;
    bytes32 accountGasLimits;
    uint256 preVerificationGas;
    bytes32 gasFees;
    bytes paymasterAndData;
    bytes signature;
}

contract OneOwner {
    mapping(address => address) public owner;

    function isModuleType(uint256 kind) external pure returns (bool) {
        return kind == 1;
    }

    function onInstall(bytes calldata data) external {
        require(data.length == 20 && owner[msg.sender] == address(0), "data");
        owner[msg.sender] = address(bytes20(data));
    }

    function onUninstall(bytes calldata) external {
        delete owner[msg.sender];
    }

    function validateUserOp(PackedUserOperation calldata operation, bytes32 hash) external view returns (uint256) {
        return signer(hash, operation.signature) == owner[operation.sender] ? 0 : 1;
    }
}

contract SeveralOwners {
    mapping(address => mapping(address => address)) private next;
    mapping(address => uint256) public threshold;

    function isModuleType(uint256 kind) external pure returns (bool) {
        return kind == 1;
    }

    function onInstall(bytes calldata data) external {
        (uint256 wanted, address[] memory owners) = abi.decode(data, (uint256, address[]));
        require(wanted > 0 && wanted <= owners.length && threshold[msg.sender] == 0, "threshold");
        threshold[msg.sender] = wanted;
        next[msg.sender][address(1)] = address(1);
        for (uint256 i = 0; i < owners.length; i++) addOwner(owners[i]);
    }

    function onUninstall(bytes calldata) external {
        threshold[msg.sender] = 0;
        address at = address(1);
        do {
            address following = next[msg.sender][at];
            delete next[msg.sender][at];
            at = following;
        } while (at > address(1));
    }

    function addOwner(address owner) public {
        require(threshold[msg.sender] > 0 && owner > address(1), "owner");
        require(next[msg.sender][owner] == address(0), "known");
        next[msg.sender][owner] = next[msg.sender][address(1)];
        next[msg.sender][address(1)] = owner;
    }

    function removeOwner(address previous, address owner) external {
        require(owner > address(1) && next[msg.sender][previous] == owner, "previous");
        next[msg.sender][previous] = next[msg.sender][owner];
        delete next[msg.sender][owner];
    }

    function getOwners(address account) external view returns (address[] memory owners) {
        owners = new address[](32);
        uint256 count;
        for (address at = next[account][address(1)]; at > address(1); at = next[account][at]) owners[count++] = at;
        assembly {
            mstore(owners, count)
        }
    }

    function validateUserOp(PackedUserOperation calldata operation, bytes32 hash) external view returns (uint256) {
        require(threshold[operation.sender] == 1, "threshold");
        address key = signer(hash, operation.signature);
        return key > address(1) && next[operation.sender][key] != address(0) ? 0 : 1;
    }
}
