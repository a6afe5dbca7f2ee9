"""The inference code: the only package beside `training` that imports torch and monai."""
