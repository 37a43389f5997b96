"""What the authors of CXL-SpecKV report, against what follows from their assumptions. Calls the simulator's public API only."""
