//! Tables, curves, histograms, heat maps and one self-contained HTML page
