"""The Gaussian theory of study A (section 6.1, appendix A): recursive estimation with selection, and its tail bound. No text, no models."""
