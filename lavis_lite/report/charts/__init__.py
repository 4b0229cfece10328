"""Charts as SVG: lines, bars, dots, histograms, ratios, grids."""
