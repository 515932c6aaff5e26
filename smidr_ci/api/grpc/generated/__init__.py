"""Made from proto/ by tools/generate_protos.py; never edited."""
