"""The public jobs, one per file."""

from __future__ import annotations

from dan_async.jobs.generate_session_key import generate_session_key

__all__ = ["generate_session_key"]
