"""Figures and images for people, drawn with matplotlib: no pyplot, the same bytes every time.

`style` holds colours and the writers of SVG and PNG, `plots` draws numbers, `images` pixels.
"""
