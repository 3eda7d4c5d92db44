"""The micro-video world: seeded short clips of known attributes, and simulated users who have a taste for some of them.

It serves the demo, the tests, the training and the exam. A clip is `Attributes` and a seed: `render_frames` draws it,
`caption` describes it, `write_clip` makes it a file. `UserPool` and `simulate_user` give histories.
"""

from linkedout_edge.microworld.attributes import FACETS, LATENT_SIZE, Attributes, held_out, one_hot, random_attributes
from linkedout_edge.microworld.captions import caption
from linkedout_edge.microworld.exam import Exam, ExamUser, ceiling_scores, make_exam, normalized
from linkedout_edge.microworld.render import render_frames, write_clip
from linkedout_edge.microworld.users import KINDS, PoolUser, Taste, UserEvent, UserPool, draw_taste, simulate_user

__all__ = [
    "FACETS",
    "KINDS",
    "LATENT_SIZE",
    "Attributes",
    "Exam",
    "ExamUser",
    "PoolUser",
    "Taste",
    "UserEvent",
    "UserPool",
    "caption",
    "ceiling_scores",
    "draw_taste",
    "held_out",
    "make_exam",
    "normalized",
    "one_hot",
    "random_attributes",
    "render_frames",
    "simulate_user",
    "write_clip",
]
