"""
Many session keys at a time: ``DanClient.generate_session_keys`` and what it gives.

Requests may come from anything that can be iterated, endless streams included; results come as they are finished, each with
the place of its request.
"""

from __future__ import annotations

from dan_async.batch.base import BatchRun, ItemResult, ItemStatus

__all__ = ["BatchRun", "ItemResult", "ItemStatus"]
