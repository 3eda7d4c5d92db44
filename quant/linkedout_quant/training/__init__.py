"""Training in three stages: tower (photos), language (captions), clips (the whole encoder)."""
