"""The science payload of Nightjar: arrays in, arrays out.

The packages stand in the order in which the data flow: ``isr``, ``calibrate``,
``template``, ``subtract``, ``diasource``, ``diaobject``, ``alerts``.  Each stage is one package
with one pure function ``run``; they meet only at `pipeline.exposure` and `pipeline.schema`.
"""
