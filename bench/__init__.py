"""Benchmarks: every figure of the README and of docs/performance.md comes from a command here."""
