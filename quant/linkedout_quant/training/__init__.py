"""Training in three stages: tower (photos), clips (the whole encoder), users (fusion and ranking)."""
