//! Transformaly: two feature spaces are better than one (arXiv 2112.04185)
