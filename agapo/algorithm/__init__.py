"""Pure mathematics on tensors: which groups to learn from, their advantages, and the objective."""
