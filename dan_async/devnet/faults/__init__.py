"""
What a devnet node can be made to do wrong, so that software can be tested against a network that misbehaves.

A fault is a frozen value; ``net.faults[index] = fault`` puts it in force at ``net.nodes[index]``, also while requests are
running, several at once as a list, and None takes all away. ``methods`` limits a fault to some RPC methods, ``times``
to so many uses.
"""
