"""Stored videos → a ranking: the user model, scores, the order, and caches for the next ranking."""
