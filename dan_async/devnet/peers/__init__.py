"""Nodes among themselves: links, mailboxes, and the protocols of several rounds that run over them."""
