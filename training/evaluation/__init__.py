"""How well passages are ranked: measures, baselines, and the metric of XOR-TyDi."""
