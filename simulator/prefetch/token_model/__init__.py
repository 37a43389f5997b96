"""Real models of token ids, trained and evaluated on recorded text: what a next-token predictor achieves, measured."""
