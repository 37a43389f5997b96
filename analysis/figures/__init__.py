"""Figures for papers from results folders alone: a function a figure, each from a DataFrame (module of its subject).

`draw.figures_of(results)` finds those that a run, a comparison or a sweep has data for; `draw.write` saves them.
"""
