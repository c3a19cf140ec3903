"""Linguistic fingerprints of models: what they repeat, how alike they are, and who carries whose (study A, section 4 and appendix B).

catalogue   models.csv: model, family, release month           influence    directed influence against the lag of release, with its null
counting    outputs to counts, one pass over the text          inheritance  the same on populations whose parents are known
results     fingerprints of the Slop Forensics toolkit         collect      outputs of a deployed model through an API
features    fingerprints to matrices, Jaccard, influence       tables       what the rules write
overlap     overlap coefficient, Cliff's delta, intervals
"""
