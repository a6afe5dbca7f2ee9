"""What a radiologist asks for, as one call each."""
