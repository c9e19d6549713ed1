"""The classifier's training: labelled detections, boosted trees, calibration, and its model card.

`samples` collects detections of simulated campaigns with what they truly are, `training` makes a
`pipeline.diasource.reliability.Forest` of them, `evaluation` judges it and `card` writes it down.
"""
