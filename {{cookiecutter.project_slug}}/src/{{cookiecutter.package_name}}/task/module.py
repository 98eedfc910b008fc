"""A LightningModule of your own, where the project's does not do: docs/your_model.md."""
