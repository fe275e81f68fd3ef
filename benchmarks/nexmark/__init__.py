"""Nexmark: 22 questions about an online auction, and one about nothing. Its events, its queries, their oracle, their speed."""

from __future__ import annotations

from benchmarks.nexmark.run import measure

__all__ = ["measure"]
