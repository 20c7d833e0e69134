"""Where generators come from: trained here, imported, or your own; and loading them."""
