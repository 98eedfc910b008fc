"""Yours: what an owner changes first. The stages call these files; the files call no stage.

They import `settings` (the typed configuration), `types` (plain types) and each other. n is the number of rows.

    source.py     rows of your data; `configs/source` names the function.          ingest
    schema.py     what a valid row is; which rows are near-duplicates.             validate, split
    features.py   raw columns → model inputs {name: float32 [n, ...]}; a request   train … monitor, and the server
                  item ↔ a raw row; `signals` [n] that drift and slices look at
    augment.py    a module that changes a batch of inputs while training.          train
    networks.py   inputs by name → raw outputs [n, k] and an embedding [n, e].     train, evaluate, package
    baselines.py  what the network has to beat: a rule of thumb, and the           train, evaluate, package
                  classical model, both of which give raw outputs [n, k]
    behaviour.py  perturbations, invariances, directions, slices: what you         evaluate
                  demand beyond a good score
    show.py       how inputs and answers look in reports (full).                   evaluate, train
    page.html     the page on which people try the model.                          serve

Raw outputs are logits [n, k] of k classes; for a number, its value and the logarithm of its standard deviation [n, 2].
"""
