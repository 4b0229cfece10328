"""Parts of models without a task: layers, vision encoders, text towers, the MED, generation."""
