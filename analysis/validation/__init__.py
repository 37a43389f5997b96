"""Model against measurement: what a file of measurements is, what the model says of each row, how far the two are apart."""
