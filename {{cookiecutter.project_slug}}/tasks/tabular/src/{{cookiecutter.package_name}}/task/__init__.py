"""Yours: what an owner changes first. The stages call these files; the files call no stage.

They import `settings` (the typed configuration), `types` (plain types) and each other.

    file          what it is                                            who calls it
    source.py     rows of your data; `configs/source` names a function  ingest
    schema.py     what a valid row is; what are near-duplicates         validate, split
    features.py   raw columns -> model inputs; request item <-> row;    train ... monitor,
                  `signals` that drift and slices look at               and the server
    dates.py      parts of dates as numbers                             features
    augment.py    a module that changes a batch while training          train
    networks.py   model inputs -> raw outputs and an embedding          train, evaluate, package
    module.py     a LightningModule of yours, if you need one           train
    baselines.py  what the network has to beat: a rule of thumb, and    train, evaluate, package
                  the classical model
    behaviour.py  perturbations, invariances, directions, slices        evaluate, replay
    show.py       how inputs and answers look in reports (full)         evaluate
    page.html     the page on which people try the model                serve

Shapes, with n rows: model inputs are {name: float32 [n, ...]}; raw outputs are logits [n, k] of k
classes, or for a number its value and the logarithm of its standard deviation [n, 2]; an embedding
is [n, e]; labels are [n], indices of `data.labels` or numbers; signals are {name: float64 [n]}.
"""
