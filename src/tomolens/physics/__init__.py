"""How scanners measure, and the classical ways back: numpy, SciPy and scikit-image; opens no file, loads no network."""
