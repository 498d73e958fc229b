"""Figures of the transfer table and of the analyses. The only home of matplotlib.

Every figure is a function of one tidy table. Colours are told apart by colour-blind readers (Okabe and Ito; RdBu,
PuOr), and the scales of heatmaps are fixed, so that any two compare.
"""
