"""A complete deep-learning system, stage by stage; `python -m` this package lists its verbs."""
