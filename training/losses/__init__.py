"""The objectives of distillation."""
