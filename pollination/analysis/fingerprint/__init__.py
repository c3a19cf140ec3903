"""Linguistic fingerprints of models: what they repeat and share (study A, section 4, appendix B).

collect      outputs of a deployed model through an API
counting     outputs to counts, in one pass over the text
results      fingerprints of the Slop Forensics toolkit
features     fingerprints to matrices, Jaccard similarity, influence
overlap      overlap coefficient, Cliff's delta, intervals
influence    directed influence against the lag of release, with its null
inheritance  influence in populations whose parents are known
tables       the tables that the rules write

pollination.plan.config.catalogue reads models.csv: model, family, release month.
"""
