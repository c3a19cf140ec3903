"""The Gaussian theory of study A (section 6.1, appendix A): estimation, selection, tail bound."""
