"""The statistics of the field, one small module each; every result says its method and its warnings in words.

sample (input), describe, assumptions (Shapiro-Wilk, Levene), kruskal, dunn, adjust (two Benjamini-Hochbergs),
aligned_rank (ART and ART-C), random_intercept (REML and Kenward-Roger), mixed, correlation, effect_size, power,
independence (identical outputs, imbalance).
"""
