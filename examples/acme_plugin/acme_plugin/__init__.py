"""Parts for lavis_lite; zoo.yaml says which module registers which name."""
