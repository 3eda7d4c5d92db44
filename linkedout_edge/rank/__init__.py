"""Stored videos → a ranking: what a user likes, scores, the order, and what is remembered for the next one."""
