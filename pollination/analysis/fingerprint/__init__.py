"""Linguistic fingerprints of models (study A, section 4, appendix B).

collect      outputs of a deployed model, through an API
requests     their order, rate and retries
client       one request to an endpoint
replies      which reply of an endpoint is an answer
answers      the answers of a collecting job on disk
prices       what the answers cost
counting     counts of outputs, in one pass over the text
results      fingerprints of the Slop Forensics toolkit
features     matrices of fingerprints, Jaccard similarity, influence
overlap      overlap coefficient, Cliff's delta, intervals
influence    directed influence against release lag, with its null
inheritance  influence in populations with known parents
tables       the tables that the rules write

pollination.plan.config.catalogue reads models.csv: model, family, release month.
"""
