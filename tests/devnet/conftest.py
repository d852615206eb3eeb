"""Fixtures of the end-to-end tests: the same that users get from the plugin."""

from __future__ import annotations

from dan_async.pytest_plugin import devnet, make_devnet

__all__ = ["devnet", "make_devnet"]
