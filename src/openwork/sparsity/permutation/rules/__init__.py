"""What each operator of an exported graph does to channels."""
