"""Rules by family, as data. `catalogue.RULES` holds all of them."""
