"""What a key makes of tuples: words, scores, totals of many keys at once, decoys and calibration."""
