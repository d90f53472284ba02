"""Pictures of captions by a sparse UNet: `python -m examples.text_to_image`."""
