"""From a model to an engine: eligibility, tactics, lowering, and the engine file."""
