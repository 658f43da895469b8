"""Synchronisation as values: what lies in a tree, what is left out, chunks, and the plan. Pure."""
