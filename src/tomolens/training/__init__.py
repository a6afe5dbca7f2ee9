"""Training of the shipped models, by the commands that `tomolens train` names."""
