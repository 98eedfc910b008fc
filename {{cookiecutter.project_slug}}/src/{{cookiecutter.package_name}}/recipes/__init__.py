"""What it costs and brings to train or serve cheaper: each recipe is measured beside the plain run
(T8).
"""
